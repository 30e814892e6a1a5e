package sim_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kinds/quota"
)

// quota makes a quota of pairs of names and amounts in the default namespace.
func (p *plane) quota(name string, pairs ...string) {
	p.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	q.Spec.Hard = amounts(pairs...)
	if _, err := client.ResourceQuotas.Create(p.Context(), p.admin, q); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func amounts(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i+1 < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

// used is what a quota's status says.
func (p *plane) used(name string) string {
	p.Helper()
	q, err := client.ResourceQuotas.Get(p.Context(), p.admin, "default", name)
	if err != nil {
		p.Fatal(err)
	}
	return quota.Show(q.Status.Used)
}

func (p *plane) expectUsed(name, want string) {
	p.Helper()
	if got := p.used(name); got != want {
		p.Errorf("quota %s: used %s, want %s", name, got, want)
	}
}

func note(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

// However many create, update and delete at once, and whatever fails on the way,
// there are never more than the quota allows, and in the end it says what is there.
func TestQuotaIsNeverExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		const most, clients, rounds = 10, 24, 30
		p.quota("few", "count/configmaps", fmt.Sprint(most+1), "services", "5", "services.nodeports", "6") // and kube-root-ca.crt
		var made, refused, failed atomic.Int64
		count := func() int {
			all, _, err := client.ConfigMaps.List(t.Context(), p.admin, "default", metav1.ListOptions{})
			if err != nil {
				t.Error(err)
			}
			return len(all)
		}
		var wg sync.WaitGroup
		for c := range clients {
			rnd := rand.New(rand.NewPCG(uint64(c), 7))
			wg.Go(func() {
				for i := range rounds {
					name := fmt.Sprintf("c-%d", rnd.IntN(2*most)) // names collide: a reservation that fails later
					_, err := client.ConfigMaps.Create(t.Context(), p.admin, note(name))
					switch {
					case err == nil:
						made.Add(1)
					case strings.Contains(err.Error(), "exceeded quota: few, requested: count/configmaps=1"):
						refused.Add(1)
					default:
						failed.Add(1)
					}
					if n := count(); n > most+1 {
						t.Errorf("%d config maps, the quota allows %d", n, most+1)
					}
					if rnd.IntN(3) == 0 {
						_ = client.ConfigMaps.Delete(t.Context(), p.admin, "default", fmt.Sprintf("c-%d", rnd.IntN(2*most)), metav1.DeleteOptions{})
					}
					if i%10 == 0 {
						time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		t.Logf("made %d, refused %d, failed %d", made.Load(), refused.Load(), failed.Load())
		if made.Load() == 0 || refused.Load() == 0 || failed.Load() == 0 {
			t.Error("not everything happened that should be tried")
		}
		p.settle()
		p.expectUsed("few", fmt.Sprintf("count/configmaps=%d,services=1,services.nodeports=0", count()))
	})
}

func port(kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Port: 80, Name: "a"}, {Port: 81, Name: "b"}}}}
}

// What an update adds is charged, what it saves is given back, and so is what a
// deletion frees.
func TestQuotaFollowsUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.quota("net", "services", "2", "services.nodeports", "2", "services.loadbalancers", "0")
		p.expectUsed("net", "services=1,services.loadbalancers=0,services.nodeports=0") // "kubernetes"
		web, err := client.Services.Create(t.Context(), p.admin, port(corev1.ServiceTypeClusterIP))
		if err != nil {
			t.Fatal(err)
		}
		p.expectUsed("net", "services=2,services.loadbalancers=0,services.nodeports=0")
		change := func(kind corev1.ServiceType) error {
			next := web.DeepCopy()
			next.Spec.Type = kind
			if kind == corev1.ServiceTypeClusterIP {
				next.Spec.Ports[0].NodePort, next.Spec.Ports[1].NodePort = 0, 0
			}
			made, err := client.Services.Update(t.Context(), p.admin, next)
			if err == nil {
				web = made
			}
			p.settle()
			return err
		}
		if err := change(corev1.ServiceTypeNodePort); err != nil {
			t.Fatal(err)
		}
		p.expectUsed("net", "services=2,services.loadbalancers=0,services.nodeports=2")
		want := `services "web" is forbidden: exceeded quota: net, requested: services.loadbalancers=1, used: services.loadbalancers=0, limited: services.loadbalancers=0`
		if err := change(corev1.ServiceTypeLoadBalancer); err == nil || err.Error() != want {
			t.Errorf("to a load balancer: %v", err)
		}
		if err := change(corev1.ServiceTypeClusterIP); err != nil {
			t.Fatal(err)
		}
		p.expectUsed("net", "services=2,services.loadbalancers=0,services.nodeports=0")
		if err := client.Services.Delete(t.Context(), p.admin, "default", "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectUsed("net", "services=1,services.loadbalancers=0,services.nodeports=0")
	})
}

func worker(name string, requests corev1.ResourceList, change func(*corev1.PodSpec)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: requests}
	if change != nil {
		change(&pod.Spec)
	}
	return pod
}

// Pods are counted by scope, until they end.
func TestQuotaOfPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		deadline := int64(3600)
		scoped := func(name string, scope corev1.ResourceQuotaScope, pairs ...string) {
			q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
			q.Spec.Hard, q.Spec.Scopes = amounts(pairs...), []corev1.ResourceQuotaScope{scope}
			if _, err := client.ResourceQuotas.Create(t.Context(), p.admin, q); err != nil {
				t.Fatal(err)
			}
		}
		scoped("short", corev1.ResourceQuotaScopeTerminating, "pods", "5", "requests.cpu", "1")
		scoped("long", corev1.ResourceQuotaScopeNotTerminating, "pods", "5", "limits.memory", "2Gi")
		scoped("best", corev1.ResourceQuotaScopeBestEffort, "pods", "0")
		p.quota("all", "count/pods", "9", "requests.example.com/gpu", "3")
		create := func(pod *corev1.Pod) string {
			if _, err := client.Pods.Create(t.Context(), p.admin, pod); err != nil {
				return err.Error()
			}
			return ""
		}
		size := amounts("cpu", "600m", "memory", "1Gi", "example.com/gpu", "1")
		for _, c := range []struct {
			pod  *corev1.Pod
			want string
		}{
			{worker("a", size, nil), ""},
			{worker("b", size, func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = &deadline }), ""},
			{worker("c", size, func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = &deadline }),
				`pods "c" is forbidden: exceeded quota: short, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1`},
			{worker("d", nil, nil), `pods "d" is forbidden: failed quota: long: must specify limits.memory for: c`},
			{worker("e", nil, func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = &deadline }),
				`pods "e" is forbidden: failed quota: short: must specify requests.cpu for: c`},
			{worker("f", amounts("cpu", "1", "memory", "1Gi", "example.com/gpu", "2"), nil),
				`pods "f" is forbidden: exceeded quota: all, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=2, limited: requests.example.com/gpu=3`},
		} {
			if got := create(c.pod); got != c.want {
				t.Errorf("pod %s: %s\nwant %s", c.pod.Name, got, c.want)
			}
		}
		p.expectUsed("short", "pods=1,requests.cpu=600m")
		p.expectUsed("long", "limits.memory=1Gi,pods=1")
		p.expectUsed("all", "count/pods=2,requests.example.com/gpu=2")
		ended, err := client.Pods.Get(t.Context(), p.admin, "default", "a")
		if err != nil {
			t.Fatal(err)
		}
		ended = ended.DeepCopy()
		ended.Status.Phase = corev1.PodSucceeded
		if _, err := client.Pods.UpdateStatus(t.Context(), p.admin, ended); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectUsed("long", "limits.memory=0,pods=0")
		p.expectUsed("all", "count/pods=2,requests.example.com/gpu=1")
		none := int64(0)
		for _, name := range []string{"a", "b"} {
			if err := client.Pods.Delete(t.Context(), p.admin, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
				t.Fatal(err)
			}
		}
		p.settle()
		p.expectUsed("short", "pods=0,requests.cpu=0")
		p.expectUsed("all", "count/pods=0,requests.example.com/gpu=0")
	})
}

// A quota that somebody spoiled is right again after a while of calm.
func TestQuotaHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.quota("few", "count/secrets", "5")
		q, err := client.ResourceQuotas.Get(t.Context(), p.admin, "default", "few")
		if err != nil {
			t.Fatal(err)
		}
		q = q.DeepCopy()
		q.Status.Used = amounts("count/secrets", "4")
		if _, err := client.ResourceQuotas.UpdateStatus(t.Context(), p.admin, q); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectUsed("few", "count/secrets=4")
		time.Sleep(time.Minute)
		p.expectUsed("few", "count/secrets=0")
	})
}
