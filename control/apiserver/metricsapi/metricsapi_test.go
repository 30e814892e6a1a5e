package metricsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sampan-dev/sampan/internal/target"
)

// cluster is two nodes, of which one is mute, and three pods.
type cluster struct {
	asked atomic.Int32
	start time.Time
}

func (c *cluster) pods() []corev1.Pod {
	pod := func(name, app, node string, containers ...string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": app}}}
		p.Spec.NodeName = node
		for _, n := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n})
		}
		return p
	}
	return []corev1.Pod{pod("a", "web", "n1", "web", "side"), pod("b", "db", "n1", "db"), pod("c", "web", "mute", "web")}
}

func (c *cluster) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	for _, p := range c.pods() {
		if t.Resource.Resource == "pods" && p.Name == t.Name {
			return &p, nil
		}
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func (c *cluster) List(_ context.Context, t target.Target, o metav1.ListOptions) (runtime.Object, error) {
	if t.Resource.Resource == "nodes" {
		return &corev1.NodeList{Items: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, {ObjectMeta: metav1.ObjectMeta{Name: "mute"}}}}, nil
	}
	list := &corev1.PodList{}
	s, err := labels.Parse(o.LabelSelector)
	for _, p := range c.pods() {
		if s.Matches(labels.Set(p.Labels)) {
			list.Items = append(list.Items, p)
		}
	}
	return list, err
}

// ask answers for n1: web uses half a core, side a tenth, db is too young for a
// second look, and the machine two cores.
func (c *cluster) ask(_ context.Context, node string) (io.ReadCloser, error) {
	c.asked.Add(1)
	if node == "mute" {
		return nil, errors.New("no answer")
	}
	now := time.Now()
	life := now.Sub(c.start).Seconds()
	text := fmt.Sprintf(`# TYPE node_cpu_usage_seconds_total counter
node_cpu_usage_seconds_total %g %d
node_memory_working_set_bytes 1048576
container_cpu_usage_seconds_total{container="web",namespace="default",pod="a"} %g %d
container_cpu_usage_seconds_total{container="side",namespace="default",pod="a"} %g
container_memory_working_set_bytes{container="web",namespace="default",pod="a"} 2048
container_memory_working_set_bytes{container="side",namespace="default",pod="a"} 1024
container_memory_working_set_bytes{container="db",namespace="default",pod="b"} 4096
pod_cpu_usage_seconds_total{namespace="default",pod="a"} 3
`, 1000+2*life, now.UnixMilli(), 7+life/2, now.UnixMilli(), life/10)
	return io.NopCloser(strings.NewReader(text)), nil
}

func get(t *testing.T, a *API, path string, into any) int {
	t.Helper()
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
	}
	return w.Code
}

func start(c *cluster) *API {
	c.start = time.Now()
	return New(Config{Objects: c, Ask: c.ask, Log: slog.New(slog.DiscardHandler), Fail: func(w http.ResponseWriter, _ *http.Request, err error) {
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			w.WriteHeader(int(known.Status().Code))
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
	}})
}

func TestUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{}
		a := start(c)
		defer a.Close()
		time.Sleep(time.Hour)
		if c.asked.Load() != 0 {
			t.Error("nodes were asked for nobody")
		}
		nodes := v1beta1.NodeMetricsList{}
		get(t, a, root+"/nodes", &nodes)
		if len(nodes.Items) != 1 || nodes.Items[0].Usage.Cpu().String() != "2" || nodes.Items[0].Usage.Memory().String() != "1Mi" || nodes.Items[0].Window.Duration != glance {
			t.Errorf("nodes %+v", nodes.Items)
		}
		// From now on there is a rhythm.
		time.Sleep(2 * every)
		pods := v1beta1.PodMetricsList{}
		get(t, a, root+"/pods?labelSelector=app%3Dweb", &pods)
		if len(pods.Items) != 1 || pods.Items[0].Name != "a" || pods.Items[0].Window.Duration != every || len(pods.Items[0].Containers) != 2 {
			t.Fatalf("pods %+v", pods.Items)
		}
		if u := pods.Items[0].Containers; u[0].Name != "web" || u[0].Usage.Cpu().MilliValue() != 500 || u[1].Usage.Cpu().MilliValue() != 100 || u[1].Usage.Memory().Value() != 1024 {
			t.Errorf("containers %+v", u)
		}
		one := v1beta1.PodMetrics{}
		if code := get(t, a, root+"/namespaces/default/pods/a", &one); code != 200 || one.Name != "a" || one.Kind != "PodMetrics" {
			t.Errorf("%d %+v", code, one)
		}
		wrong := map[string]string{}
		if code := get(t, a, root+"/namespaces/default/pods/b", &wrong); code != 404 || wrong["message"] != `podmetrics.metrics.k8s.io "default/b" not found` {
			t.Errorf("%d %v", code, wrong)
		}
		if code := get(t, a, root+"/namespaces/default/nodes", nil); code != 404 {
			t.Errorf("nodes of a namespace: %d", code)
		}
		if code := get(t, a, root+"/pods?labelSelector=%3D%3D", nil); code != 400 {
			t.Errorf("a bad selector: %d", code)
		}
		time.Sleep(attention + 2*every)
		before := c.asked.Load()
		time.Sleep(time.Hour)
		if c.asked.Load() != before {
			t.Error("nodes are asked though nobody listens")
		}
	})
}

// A counter that begins anew, and a container that has just begun.
func TestRate(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(s float64, cpu float64) point {
		return point{at: t0.Add(time.Duration(s * 1e9)), seconds: cpu, bytes: 1, hasCPU: true, hasMem: true}
	}
	young := at(15, 3)
	young.started = t0.Add(9 * time.Second)
	old := at(15, 3)
	old.started = t0.Add(-time.Hour)
	for name, c := range map[string]struct {
		before, now point
		want        string
	}{
		"usual":             {at(0, 1), at(10, 6), "500000000n in 10s"},
		"began anew":        {at(0, 10), old, "unknown"},
		"began a while ago": {point{}, old, "unknown"},
		"just began":        {point{}, young, "500000000n in 6s"},
		"no memory":         {at(0, 1), point{at: t0.Add(time.Second), hasCPU: true}, "unknown"},
		"same moment":       {at(1, 1), at(1, 1), "unknown"},
	} {
		got := "unknown"
		if u, ok := rate(c.before, c.now); ok {
			got = fmt.Sprintf("%dn in %v", u.nanos, u.window)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestRead(t *testing.T) {
	s, err := read(strings.NewReader("container_cpu_usage_seconds_total{namespace=\"a\",pod=\"p\\\"{}\",container=\"c\"} 1.5e+02 1700000000123\n"), time.Now())
	if p := s.pods[podKey{"a", `p"{}`}]["c"]; err != nil || p.seconds != 150 || p.at.UnixMilli() != 1700000000123 {
		t.Errorf("%v %+v", err, s)
	}
	for _, bad := range []string{"x", "x{a=b} 1", `x{a="b" 1`, "x one", "x 1 2 3", `x{a="b"`} {
		if _, err := read(strings.NewReader(bad), time.Now()); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
