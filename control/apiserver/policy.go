package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// watchAgain is how long a broken watch waits before it lists anew.
const watchAgain = time.Second

// watcher is the part of a transport that a mirror needs.
type watcher interface {
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
}

// policy mirrors roles and bindings for the authorizer: the objects of the watch
// cache, found by kind.
type policy struct {
	objects watcher
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

// follow lists and watches, again and again; first is told of the first list.
func (m *mirror[T]) follow(ctx context.Context, p *policy, resource string, first *sync.WaitGroup) error {
	at := target.Of(rbacv1.SchemeGroupVersion.WithResource(resource), "")
	once := sync.OnceFunc(first.Done)
	defer once()
	for {
		err := m.once(ctx, p, at, once)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			p.log.Warn("follow the policy", "resource", resource, "error", err)
		}
		timer := time.NewTimer(watchAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (m *mirror[T]) once(ctx context.Context, p *policy, at target.Target, listed func()) error {
	list, err := p.objects.List(ctx, at, metav1.ListOptions{})
	if err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	items := map[string]T{}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return fmt.Errorf("list of %s holds a %T", at, obj)
		}
		items[key(item)] = item
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.items = items
	m.mu.Unlock()
	p.touched()
	listed()
	w, err := p.objects.Watch(ctx, at, metav1.ListOptions{ResourceVersion: accessor.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("watch ended")
			}
			if err := m.apply(p, e); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *mirror[T]) apply(p *policy, e watch.Event) error {
	if e.Type == watch.Bookmark {
		return nil
	}
	item, ok := e.Object.(T)
	if !ok {
		return fmt.Errorf("watch event %s with a %T", e.Type, e.Object)
	}
	m.mu.Lock()
	if e.Type == watch.Deleted {
		delete(m.items, key(item))
	} else {
		m.items[key(item)] = item
	}
	m.mu.Unlock()
	p.touched()
	return nil
}

func key(obj metav1.Object) string { return obj.GetNamespace() + "/" + obj.GetName() }
