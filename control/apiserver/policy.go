package apiserver

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// policy mirrors roles and bindings for the authorizer: the objects of the watch
// cache, found by kind.
type policy struct {
	objects follow.Watcher
	log     *slog.Logger
	synced  chan struct{}

	version             atomic.Int64
	clusterRoles        mirror[*rbacv1.ClusterRole]
	roles               mirror[*rbacv1.Role]
	clusterRoleBindings mirror[*rbacv1.ClusterRoleBinding]
	roleBindings        mirror[*rbacv1.RoleBinding]
	// changed tells the aggregation of roles that there may be work.
	changed chan struct{}
}

func newPolicy(log *slog.Logger) *policy {
	return &policy{log: log, synced: make(chan struct{}), changed: make(chan struct{}, 1)}
}

func (p *policy) Version() int64                      { return p.version.Load() }
func (p *policy) ClusterRoles() []*rbacv1.ClusterRole { return p.clusterRoles.list() }
func (p *policy) Roles() []*rbacv1.Role               { return p.roles.list() }
func (p *policy) ClusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	return p.clusterRoleBindings.list()
}
func (p *policy) RoleBindings() []*rbacv1.RoleBinding { return p.roleBindings.list() }

// run follows the four kinds until ctx ends.
func (p *policy) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var first sync.WaitGroup
	first.Add(4)
	go func() { first.Wait(); close(p.synced) }()
	g.Go(func() error { return p.clusterRoles.follow(ctx, p, "clusterroles", &first) })
	g.Go(func() error { return p.roles.follow(ctx, p, "roles", &first) })
	g.Go(func() error { return p.clusterRoleBindings.follow(ctx, p, "clusterrolebindings", &first) })
	g.Go(func() error { return p.roleBindings.follow(ctx, p, "rolebindings", &first) })
	return g.Wait()
}

// touched says that something is different.
func (p *policy) touched() {
	p.version.Add(1)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// mirror is one kind's objects, by namespace/name.
type mirror[T kinds.Object] struct {
	mu    sync.Mutex
	items map[string]T
}

func (m *mirror[T]) list() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]T, 0, len(m.items))
	for _, item := range m.items {
		out = append(out, item)
	}
	return out
}

// follow keeps the mirror until ctx ends; first is told of the first list.
func (m *mirror[T]) follow(ctx context.Context, p *policy, resource string, first *sync.WaitGroup) error {
	listed := sync.OnceFunc(first.Done)
	defer listed()
	at := target.Of(rbacv1.SchemeGroupVersion.WithResource(resource), "")
	return follow.Each(ctx, follow.Source{From: p.objects, At: at, Log: p.log}, func(all []T) {
		items := make(map[string]T, len(all))
		for _, item := range all {
			items[key(item)] = item
		}
		m.mu.Lock()
		m.items = items
		m.mu.Unlock()
		p.touched()
		listed()
	}, func(e watch.EventType, item T) {
		m.mu.Lock()
		if e == watch.Deleted {
			delete(m.items, key(item))
		} else {
			m.items[key(item)] = item
		}
		m.mu.Unlock()
		p.touched()
	})
}

func key(obj metav1.Object) string { return obj.GetNamespace() + "/" + obj.GetName() }
