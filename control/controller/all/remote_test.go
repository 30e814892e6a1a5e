package all_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
)

// A server that nobody can ask what it keeps holds up the end of a namespace, but
// nothing else that is in it.
func TestNamespaceWaitsForOtherServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services := client.Resource[*apiregistrationv1.APIService]{
			GroupVersionResource: apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), Kind: "APIService"}
		b := start(t,
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}},
			config("gone", "c"), config("a", "other"),
			&apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.wares.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
				Group: "wares.example.com", Version: "v1", GroupPriorityMinimum: 1, VersionPriority: 1, InsecureSkipTLSVerify: true,
				Service: &apiregistrationv1.ServiceReference{Namespace: "a", Name: "away"}}})
		if err := client.Namespaces.Delete(t.Context(), b.server, "", "gone", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		b.settle()
		b.expectConfigs("other")
		ns, err := client.Namespaces.Get(t.Context(), b.server, "", "gone")
		if err != nil {
			t.Fatal(err)
		}
		told := ""
		for _, c := range ns.Status.Conditions {
			if c.Status == corev1.ConditionTrue {
				told += string(c.Type) + " " + c.Reason + ": " + c.Message
			}
		}
		want := "NamespaceDeletionDiscoveryFailure DiscoveryFailed: Discovery failed for some groups, 1 failing: " +
			"unable to retrieve the complete list of server APIs: wares.example.com/v1: stale GroupVersion discovery: wares.example.com/v1"
		if told != want {
			t.Errorf("told %q, want %q", told, want)
		}
		if err := services.Delete(t.Context(), b.server, "", "v1.wares.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute) // tries again, ever more slowly
		b.settle()
		if _, err := client.Namespaces.Get(t.Context(), b.server, "", "gone"); err == nil {
			t.Error("the namespace is still there")
		}
	})
}
