package fork

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

// origin is a live cluster: a real control plane, and hands for nodes.
type origin struct {
	*testing.T
	objects store.Store
	server  *apiserver.Server
	admin   client.Transport
}

func newScheduler(t client.Transport) (*scheduler.Scheduler, error) {
	return scheduler.New(scheduler.Config{Transport: t, Profiles: profile.Default(), Seed: 1, Log: slog.New(slog.DiscardHandler)})
}

// start brings up a cluster with what a manifest says, and waits until it is at rest.
func start(t *testing.T, manifest string) *origin {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		t.Fatal(err)
	}
	objects, table := memory.New(memory.Config{}), kindtable.Kinds()
	server, err := apiserver.New(apiserver.Config{Store: objects, Kinds: table, Authority: authority, TokenKey: tokens, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = objects.Close()
	})
	running.Go(func() { _ = server.Run(ctx) })
	<-server.Ready()
	// A fork's own way of starting who decides serves for the live cluster, too.
	f := &Fork{cfg: Config{Kinds: table, Scheduler: newScheduler, Log: log}, server: server, base: &copied{unread: []string{"no collector"}}}
	if err := f.decide(ctx, authority.PEM()); err != nil {
		t.Fatal(err)
	}
	o := &origin{T: t, objects: objects, server: server}
	o.admin = server.Local(identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}})
	h := newHands(o.admin, nil, log)
	running.Go(func() { h.run(ctx) })
	t.Cleanup(func() { stop(); f.running.Wait() })
	o.settle()
	f.admin = o.admin
	for _, obj := range parse(t, manifest) {
		if err := f.apply(ctx, "default", obj); err != nil {
			t.Fatalf("%s %s: %v", obj.GetKind(), obj.GetName(), err)
		}
		if obj.GetKind() == "Node" {
			o.settle() // those who annotate new nodes have done so
			o.ready(obj)
			o.settle() // and those who taint what is not ready
		}
	}
	o.settle()
	return o
}

// ready gives a node what its manifest says that it has: creating it has dropped that.
func (o *origin) ready(obj *unstructured.Unstructured) {
	o.Helper()
	said := &corev1.Node{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, said); err != nil {
		o.Fatal(err)
	}
	have, err := client.Nodes.Get(o.Context(), o.admin, "", said.Name)
	if err != nil {
		o.Fatal(err)
	}
	have = have.DeepCopy()
	have.Spec.Taints = nil // it is ready from the start
	if have, err = client.Nodes.Update(o.Context(), o.admin, have); err != nil {
		o.Fatal(err)
	}
	have = have.DeepCopy()
	have.ResourceVersion = "" // somebody may have been quick to taint it again
	have.Status = said.Status
	have.Status.Capacity = said.Status.Allocatable
	have.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := client.Nodes.UpdateStatus(o.Context(), o.admin, have); err != nil {
		o.Fatal(err)
	}
}

func parse(t *testing.T, manifest string) (all []*unstructured.Unstructured) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(&obj.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, obj)
	}
}

func (o *origin) settle() {
	for range 5 {
		synctest.Wait()
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

// all is every key of the origin's store with its revision.
func (o *origin) all() (keys []string) {
	o.Helper()
	listing, err := o.objects.List(o.Context(), registry, store.ListOptions{})
	if err != nil {
		o.Fatal(err)
	}
	for _, e := range listing.Entries {
		keys = append(keys, fmt.Sprintf("%s@%d", e.Key, e.Revision))
	}
	slices.Sort(keys)
	return keys
}

// expect asks a fork, compares its forecast with what is wanted, and the origin after
// it with what that was before.
func (o *origin) expect(want string, ask func(ctx context.Context, f *Fork) (*explain.Forecast, error)) {
	o.Helper()
	before := o.all()
	f, err := Open(o.Context(), Config{Live: o.admin, Kinds: kindtable.Kinds(), Scheduler: newScheduler})
	if err != nil {
		o.Fatal(err)
	}
	told, err := ask(o.Context(), f)
	f.Close()
	if err != nil {
		o.Fatal(err)
	}
	if got := show(told); got != strings.TrimLeft(want, "\n") {
		o.Errorf("got\n%s\nwant%s", got, want)
	}
	if after := o.all(); !slices.Equal(before, after) {
		o.Errorf("the live cluster has changed:\n%s\nwas\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// show tells a forecast, a line each; the random ends of names are left out.
func show(f *explain.Forecast) string {
	var b strings.Builder
	name := func(pod, owner string) string {
		if owner == "" || !strings.HasPrefix(owner, "ReplicaSet/") {
			return pod
		}
		set, _, _ := strings.Cut(pod, "-")
		return set + "-*"
	}
	var placed []string
	for _, p := range f.Placed {
		placed = append(placed, fmt.Sprintf("placed %s on %s: %s\n", name(p.Name, p.Owner), p.Node, p.Reason))
	}
	slices.Sort(placed)
	b.WriteString(strings.Join(placed, ""))
	for _, p := range f.Pending {
		fmt.Fprintf(&b, "pending %s: %s\n", name(p.Name, p.Owner), p.Reason)
	}
	losses := func(what string, all []explain.Loss) {
		var lines []string
		for _, l := range all {
			short, _, _ := strings.Cut(l.Name, "-")
			lines = append(lines, fmt.Sprintf("%s %s: %s\n", what, short, l.Reason))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	losses("gone", f.Gone)
	losses("blocked", f.Blocked)
	losses("refused", f.Refused)
	losses("kept", f.Kept)
	fmt.Fprintf(&b, "settled %v, fulfilled %v\n", f.Settled, f.Fulfilled())
	return b.String()
}

const budget = `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
`

// cluster is two nodes, and a deployment on them that a budget guards.
const cluster = `
apiVersion: v1
kind: Node
metadata: {name: small, labels: {kubernetes.io/hostname: small}}
status: {allocatable: {cpu: "2", memory: 4Gi, pods: "20"}}
---
apiVersion: v1
kind: Node
metadata: {name: large, labels: {kubernetes.io/hostname: large}}
status: {allocatable: {cpu: "4", memory: 4Gi, pods: "20"}}
---` + budget + `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
        {weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}}]}}
      containers: [{name: c, image: web, resources: {requests: {cpu: "1"}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log, namespace: default}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: c, image: log}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: default}
spec: {nodeSelector: {kubernetes.io/hostname: large}, containers: [{name: c, image: app, resources: {requests: {cpu: "1"}}}]}
`

// What would become of a file of pods: one fits, one does not, one is no pod at all.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, cluster)
		o.expect(`
placed fits on large: 1 of 2 nodes fit, it has most points: 0
pending wide: 0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
refused Pod/wrong: Pod "wrong" is invalid: spec.containers: Required value
settled true, fulfilled false
`, func(ctx context.Context, f *Fork) (*explain.Forecast, error) {
			return f.Apply(ctx, "default", parse(t, `
apiVersion: v1
kind: Pod
metadata: {name: fits}
spec: {containers: [{name: c, image: app, resources: {requests: {cpu: 1500m}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wide}
spec: {containers: [{name: c, image: app, resources: {requests: {cpu: "8"}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec: {containers: []}
`))
		})
	})
}

// What would become of the pods of a node that is drained: what a budget guards moves
// one by one, what nobody owns is gone, what belongs to every node stays.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, cluster)
		o.expect(`
placed web-* on small: 1 of 2 nodes fit, it has most points: 0
gone alone: evicted or deleted; nothing brings it back
gone web: evicted or deleted
kept log: DaemonSet log puts one on every node (--ignore-daemonsets)
settled true, fulfilled true
`, func(ctx context.Context, f *Fork) (*explain.Forecast, error) { return f.Drain(ctx, "large") })
		// A budget that allows no disruption at all blocks it, to the end.
		o.expect(`
gone alone: evicted or deleted; nothing brings it back
blocked web: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy pods and has 2 currently
kept log: DaemonSet log puts one on every node (--ignore-daemonsets)
settled true, fulfilled false
`, func(ctx context.Context, f *Fork) (*explain.Forecast, error) {
			tight := parse(t, strings.Replace(budget, "minAvailable: 1", "minAvailable: 2", 1))[0]
			if err := f.apply(ctx, "default", tight); err != nil {
				return nil, err
			}
			return f.Drain(ctx, "large")
		})
	})
}

// A node that nobody knows can't be drained, and what the caller may not read is said.
func TestAskInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := start(t, cluster)
		f, err := Open(t.Context(), Config{Live: o.admin, Kinds: kindtable.Kinds(), Scheduler: newScheduler})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Drain(t.Context(), "nobody"); !apierrors.IsNotFound(err) {
			t.Errorf("drain of an unknown node: %v", err)
		}
		stranger := o.server.Local(identity.Identity{Name: "stranger", Groups: []string{identity.Authenticated}})
		g, err := Open(t.Context(), Config{Live: stranger, Kinds: kindtable.Kinds(), Scheduler: newScheduler})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		told, err := g.Apply(t.Context(), "default", nil)
		if err != nil || !slices.Contains(told.Unread, "pods") || len(told.Placed)+len(told.Pending) > 0 {
			t.Errorf("%v, a stranger's forecast %+v", err, told)
		}
	})
}
