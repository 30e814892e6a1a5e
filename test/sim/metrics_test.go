package sim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

// gauge is another's server of metrics, as Prometheus' adapter is one: it serves the
// groups custom.metrics.k8s.io and external.metrics.k8s.io over HTTPS.
type gauge struct {
	mu    sync.Mutex
	value map[string]string // by metric, each pod's or the whole
	asked []string
	pods  func() []string
}

func (g *gauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 || r.Header.Get("X-Remote-User") == "" {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, r.Header.Get("X-Remote-User")+" "+r.URL.RequestURI())
	w.Header().Set("Content-Type", "application/json")
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) < 3: // schemas and groups: there are none
		http.NotFound(w, r)
	case len(parts) == 3: // /apis/group/version
		fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"%s/%s","resources":[]}`, parts[1], parts[2])
	case parts[1] == "external.metrics.k8s.io":
		g.list(w, "external.metrics.k8s.io/v1beta1", "ExternalMetricValueList", []map[string]any{
			{"metricName": parts[5], "timestamp": metav1.Now(), "value": g.value[parts[5]]}})
	case parts[5] == "pods":
		var items []map[string]any
		for _, name := range g.pods() {
			items = append(items, g.item("Pod", name, parts[7]))
		}
		g.list(w, "custom.metrics.k8s.io/v1beta2", "MetricValueList", items)
	default:
		g.list(w, "custom.metrics.k8s.io/v1beta2", "MetricValueList", []map[string]any{g.item("Service", parts[6], parts[7])})
	}
}

func (g *gauge) item(kind, name, metric string) map[string]any {
	return map[string]any{"describedObject": map[string]any{"kind": kind, "namespace": "default", "name": name, "apiVersion": "/v1"},
		"metric": map[string]any{"name": metric}, "timestamp": metav1.Now(), "windowSeconds": 30, "value": g.value[metric]}
}

func (g *gauge) list(w http.ResponseWriter, version, kind string, items []map[string]any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{}, "items": items})
}

func (g *gauge) set(metric, value string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.value[metric] = value
}

// serve starts the gauge for whom front certifies, and publishes it.
func (g *gauge) serve(p *plane, front *pki.Authority) {
	p.Helper()
	ca, err := pki.Temporary(time.Now)
	if err != nil {
		p.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Leaf{CommonName: "gauge", DNSNames: []string{"gauge.default.svc"}, Server: true})
	if err != nil {
		p.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(front.PEM())
	server := httptest.NewUnstartedServer(g)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven}
	server.StartTLS()
	p.Cleanup(server.Close)
	_, text, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		p.Fatal(err)
	}
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		p.Fatal(err)
	}
	port := int32(number)
	// Endpoints may not be on the loopback interface; a name may be.
	_, err = client.Services.Create(p.Context(), p.admin, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "gauge"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: port}}}})
	if err != nil {
		p.Fatal(err)
	}
	for _, gv := range []metav1.GroupVersion{{Group: "custom.metrics.k8s.io", Version: "v1beta2"}, {Group: "external.metrics.k8s.io", Version: "v1beta1"}} {
		s := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group}, Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: 100, VersionPriority: 100, CABundle: ca.PEM(),
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "gauge", Port: &port}}}
		at := target.Of(apiregistrationv1.SchemeGroupVersion.WithResource("apiservices"), "")
		if _, err := p.admin.Create(p.Context(), at, s, metav1.CreateOptions{}); err != nil {
			p.Fatal(err)
		}
	}
}

// patience is how long something may take that has no event to wait for.
const patience = 3 * time.Minute

// runs makes every pod of namespace default ready, until ctx ends.
func (p *plane) runs(ctx context.Context) {
	events, err := client.Pods.Watch(ctx, p.admin, "default", metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		p.Error(err)
		return
	}
	for e := range events.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok || pod.Status.Phase == corev1.PodRunning || e.Type == watch.Deleted {
			continue
		}
		pod = pod.DeepCopy()
		ago := metav1.NewTime(time.Now().Add(-time.Hour))
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &ago,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: ago}}}
		if _, err := client.Pods.UpdateStatus(ctx, p.admin, pod); err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
			p.Error(err)
		}
	}
}

// reached waits until the deployment has some size.
func (p *plane) reached(ctx context.Context, want int32) {
	p.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opts := metav1.ListOptions{ResourceVersion: "0", FieldSelector: "metadata.name=web"}
	events, err := client.Deployments.Watch(ctx, p.admin, "default", opts)
	if err != nil {
		p.Fatal(err)
	}
	last := int32(-1)
	for e := range events.ResultChan() {
		d, ok := e.Object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		if last = *d.Spec.Replicas; last == want && d.Status.Replicas == want {
			return
		}
	}
	h, err := client.HorizontalPodAutoscalers.Get(p.Context(), p.admin, "default", "web")
	p.Fatalf("the deployment has %d replicas after %v, want %d: %v %+v", last, patience, want, err, h.Status)
}

// A deployment follows what another's server measures, over HTTPS: metrics of its
// pods, of an object, and of something outside.
func TestAutoscalerFollowsOthersMetrics(t *testing.T) {
	if testing.Short() {
		t.Skip("autoscalers look every fifteen seconds of real time")
	}
	front, err := pki.Temporary(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	p := boot(t, func(c *apiserver.Config) { c.FrontProxy = front })
	g := &gauge{value: map[string]string{"requests": "10", "queue": "0", "orders": "0"}}
	g.pods = func() (names []string) {
		for _, pod := range p.list("default", "app=web") {
			names = append(names, pod.Name)
		}
		return names
	}
	g.serve(p, front)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.runs(ctx) })
	defer func() { stop(); running.Wait() }()
	made := web("default", "i")
	one := int32(1)
	made.Spec.Replicas = &one
	if _, err := client.Deployments.Create(t.Context(), p.admin, made); err != nil {
		t.Fatal(err)
	}
	p.reached(t.Context(), 1)
	average := func(of string) autoscalingv2.MetricTarget {
		q := resource.MustParse(of)
		return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: &q}
	}
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &one, MaxReplicas: 9,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			Metrics: []autoscalingv2.MetricSpec{
				{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "requests"}, Target: average("5")}},
				{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
					DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "shop"},
					Metric:          autoscalingv2.MetricIdentifier{Name: "queue"}, Target: average("10")}},
				{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "orders", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"shop": "east"}}},
					Target: average("100")}},
			}}}
	if _, err := client.HorizontalPodAutoscalers.Create(t.Context(), p.admin, h); err != nil {
		t.Fatal(err)
	}
	p.reached(t.Context(), 2) // each pod has twice what it should
	g.set("requests", "5")
	g.set("queue", "40")
	p.reached(t.Context(), 4)
	g.set("orders", "700")
	p.reached(t.Context(), 7)
	g.mu.Lock()
	defer g.mu.Unlock()
	want := "system:serviceaccount:kube-system:horizontal-pod-autoscaler /apis/external.metrics.k8s.io/v1beta1/namespaces/default/orders?labelSelector=shop%3Deast"
	if all := strings.Join(g.asked, "\n"); !strings.Contains(all, want) {
		t.Errorf("asked:\n%s\nwant %s", all, want)
	}
}
