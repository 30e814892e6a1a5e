package admit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// immortal namespaces cannot be deleted.
var immortal = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

const (
	// liveLookup is for how long after a namespace's deletion the store is asked
	// whether it is going: the cache may not have heard yet. Upstream's.
	liveLookup = 30 * time.Second
	// maxGoing namespaces are remembered as deleted.
	maxGoing = 1000
)

// namespaces: nothing is created in a namespace that is not there or is going
// away, and the built-in ones stay.
type namespaces struct {
	Changing
	objects Reader
	going   *going
}

// going are the namespaces whose deletion this server has seen lately.
type going struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[string]time.Time
}

func (g *going) add(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.at) >= maxGoing {
		clear(g.at)
	}
	g.at[name] = g.now()
}

func (g *going) has(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.at[name]
	if ok && g.now().Sub(at) > liveLookup {
		delete(g.at, name)
		return false
	}
	return ok
}

func (r namespaces) Admit(ctx context.Context, a *resource.Attributes) error {
	if is(a, "", "namespaces") {
		return r.remove(a)
	}
	if a.Target.Namespace == "" || a.Operation != resource.OpCreate && a.Operation != resource.OpConnect || is(a, "authorization.k8s.io", "localsubjectaccessreviews") {
		return nil
	}
	at := core("namespaces", "", a.Target.Namespace)
	obj, err := cached(ctx, r.objects, at)
	if err == nil && active(obj) && r.going.has(a.Target.Namespace) {
		obj, err = r.objects.Get(ctx, at, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	if a.Operation != resource.OpCreate || active(obj) {
		return nil
	}
	return terminating(a, a.Target.Namespace)
}

// remove keeps the built-in namespaces, and remembers what other one goes.
func (r namespaces) remove(a *resource.Attributes) error {
	if a.Operation != resource.OpDelete || a.Target.Subresource != "" {
		return nil
	}
	if slices.Contains(immortal, a.Target.Name) {
		return a.Forbidden(fmt.Errorf("this namespace may not be deleted"))
	}
	r.going.add(a.Target.Name)
	return nil
}

func active(obj runtime.Object) bool {
	ns, ok := obj.(*corev1.Namespace)
	return !ok || ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil
}

// terminating is a 403 whose cause clients look for.
func terminating(a *resource.Attributes, namespace string) error {
	err := a.Forbidden(fmt.Errorf("unable to create new content in namespace %s because it is being terminated", namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", namespace),
		Field:   "metadata.namespace",
	})
	return err
}
