package gc

import (
	"maps"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// maxAbsent is how many objects are remembered to be gone, so that the thousands
// of dependents of one owner do not each ask the server for it.
const maxAbsent = 4096

// node is what the graph knows of one object. It is immutable.
type node struct {
	kind       controller.Kind
	namespace  string
	name       string
	uid        types.UID
	owners     []metav1.OwnerReference
	deleting   bool
	foreground bool // waits for its dependents to go first
	orphaning  bool // waits for its dependents to be let go
}

// blocks says whether the node keeps the owner from going before it.
func (n *node) blocks(owner types.UID) bool {
	return slices.ContainsFunc(n.owners, func(ref metav1.OwnerReference) bool {
		return ref.UID == owner && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	})
}

// graph is all objects and who depends on whom. An owner that is named and not
// known has dependents all the same. It may be used from any goroutine.
type graph struct {
	mu         sync.Mutex
	nodes      map[types.UID]*node
	dependents map[types.UID]map[types.UID]bool // by owner
	absent     map[absence]bool
	order      []absence // of absent, oldest first
}

func newGraph() *graph {
	return &graph{
		nodes:      map[types.UID]*node{},
		dependents: map[types.UID]map[types.UID]bool{},
		absent:     map[absence]bool{},
	}
}

// nodeOf makes a node of an object's metadata.
func nodeOf(kind controller.Kind, obj client.Object) *node {
	return &node{
		kind: kind, namespace: obj.GetNamespace(), name: obj.GetName(), uid: obj.GetUID(),
		owners:     obj.GetOwnerReferences(),
		deleting:   obj.GetDeletionTimestamp() != nil,
		foreground: slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents),
		orphaning:  slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents),
	}
}

// put takes in an object and returns whom to look at because of it.
func (g *graph) put(n *node) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.nodes[n.uid]
	g.nodes[n.uid] = n
	g.link(old, n)
	var look []types.UID
	if len(n.owners) > 0 && (old == nil || !slices.EqualFunc(old.owners, n.owners, sameOwner)) || n.deleting && (n.foreground || n.orphaning) {
		look = append(look, n.uid)
	}
	if n.deleting && n.foreground && (old == nil || !old.deleting || !old.foreground) {
		look = append(look, slices.Collect(maps.Keys(g.dependents[n.uid]))...)
	}
	return append(look, g.waiting(old)...)
}

// drop forgets an object that is gone and returns whom to look at.
func (g *graph) drop(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.nodes[uid]
	delete(g.nodes, uid)
	g.link(old, nil)
	g.gone(absence{uid: uid})
	return append(slices.Collect(maps.Keys(g.dependents[uid])), g.waiting(old)...)
}

// forget drops an object of a kind that is followed no longer; nothing follows
// from it.
func (g *graph) forget(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.link(g.nodes[uid], nil)
	delete(g.nodes, uid)
}

// waiting are the owners of n that wait in the foreground for it, or for the
// reference that it had.
func (g *graph) waiting(n *node) []types.UID {
	if n == nil {
		return nil
	}
	var owners []types.UID
	for _, ref := range n.owners {
		if owner := g.nodes[ref.UID]; owner != nil && owner.deleting && owner.foreground {
			owners = append(owners, ref.UID)
		}
	}
	return owners
}

// link replaces old's edges by next's.
func (g *graph) link(old, next *node) {
	if old != nil {
		for _, ref := range old.owners {
			delete(g.dependents[ref.UID], old.uid)
			if len(g.dependents[ref.UID]) == 0 {
				delete(g.dependents, ref.UID)
			}
		}
	}
	if next != nil {
		for _, ref := range next.owners {
			if g.dependents[ref.UID] == nil {
				g.dependents[ref.UID] = map[types.UID]bool{}
			}
			g.dependents[ref.UID][next.uid] = true
		}
	}
}

// absence is something that does not exist. With only a uid it is an object that
// was seen to go: no uid is ever used twice. Else it is what a reference names,
// with all that it says, right or wrong: another's reference to the same uid
// proves nothing.
type absence struct {
	uid                          types.UID
	namespace, name, kind, group string
}

// markGone remembers an absence.
func (g *graph) markGone(a absence) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone(a)
}

func (g *graph) gone(a absence) {
	if g.absent[a] {
		return
	}
	if len(g.order) >= maxAbsent {
		delete(g.absent, g.order[0])
		g.order = g.order[1:]
	}
	g.absent[a] = true
	g.order = append(g.order, a)
}

func (g *graph) isGone(a absence) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.absent[a] || g.absent[absence{uid: a.uid}]
}

func (g *graph) get(uid types.UID) *node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[uid]
}

// dependentsOf returns those who name the owner.
func (g *graph) dependentsOf(uid types.UID) []*node {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*node
	for dependent := range g.dependents[uid] {
		if n := g.nodes[dependent]; n != nil {
			all = append(all, n)
		}
	}
	return all
}

func sameOwner(a, b metav1.OwnerReference) bool {
	blockA := a.BlockOwnerDeletion != nil && *a.BlockOwnerDeletion
	blockB := b.BlockOwnerDeletion != nil && *b.BlockOwnerDeletion
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && blockA == blockB
}
