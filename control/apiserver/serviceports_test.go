package apiserver

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/store/memory"
)

// Two servers on one store give no address and no node port twice, while both make
// and delete services.
func TestTwoServersShareAddressesAndPorts(t *testing.T) {
	const each = 40
	shared := memory.New(memory.Config{})
	servers := []*world{}
	for range 2 {
		servers = append(servers, startWith(t, func(c *Config) {
			must(t, c.Store.Close())
			c.Store = shared
		}))
	}
	var wg sync.WaitGroup
	for n, w := range servers {
		admin := w.as("admin", "system:masters")
		wg.Go(func() {
			for i := range each {
				svc := &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d-%d", n, i)},
					Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 81}}}}
				if code, text := w.do(admin, "POST", "/api/v1/namespaces/default/services", svc, nil); code != http.StatusCreated {
					t.Errorf("create %s: %d %s", svc.Name, code, text)
				}
				if i%4 == 3 {
					if code, text := w.do(admin, "DELETE", "/api/v1/namespaces/default/services/"+svc.Name, nil, nil); code != http.StatusOK {
						t.Errorf("delete %s: %d %s", svc.Name, code, text)
					}
				}
			}
		})
	}
	wg.Wait()
	var list corev1.ServiceList
	servers[0].do(servers[0].as("admin", "system:masters"), "GET", "/api/v1/services", nil, &list)
	holders := map[string]string{}
	for _, svc := range list.Items {
		held := []string{svc.Spec.ClusterIP}
		for _, p := range svc.Spec.Ports {
			if p.NodePort != 0 {
				held = append(held, fmt.Sprint(p.NodePort))
			}
		}
		for _, what := range held {
			if other, twice := holders[what]; twice {
				t.Errorf("%s is held by %s and %s", what, other, svc.Name)
			}
			holders[what] = svc.Name
		}
	}
	if want := 2*each*3/4 + 1; len(list.Items) != want {
		t.Errorf("%d services, want %d", len(list.Items), want)
	}
	// One server knows what the other has given.
	taken := list.Items[len(list.Items)-1].Spec.Ports[0].NodePort
	for _, w := range servers {
		svc := &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: "late"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: taken}}}}
		if code, text := w.do(w.as("admin", "system:masters"), "POST", "/api/v1/namespaces/default/services", svc, nil); code != http.StatusUnprocessableEntity {
			t.Errorf("port %d once more: %d %s", taken, code, text)
		}
	}
}
