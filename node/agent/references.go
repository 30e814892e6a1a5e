package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/node/volume"
)

// syncTimeout bounds the wait for an object that a pod names; longer than it
// takes a healthy server to answer, short enough to be told of.
const syncTimeout = 10 * time.Second

// refKey names a ConfigMap (secret false) or Secret.
type refKey struct {
	secret          bool
	namespace, name string
}

// watched is one object that is being mirrored because pods use it.
type watched struct {
	users  map[types.UID]bool
	stop   context.CancelFunc
	synced <-chan struct{}
	get    func() (client.Object, bool)
}

// references mirrors exactly the ConfigMaps and Secrets that this node's pods
// name, one watch each, which is all that the API server lets a node see. It
// implements volume.Source and may be used from any goroutine.
type references struct {
	transport client.Transport
	log       *slog.Logger
	changed   func(users []types.UID)

	mu    sync.Mutex
	known map[refKey]*watched
	pods  map[types.UID]map[refKey]bool
	wg    sync.WaitGroup
}

func newReferences(t client.Transport, log *slog.Logger, changed func([]types.UID)) *references {
	return &references{
		transport: t, log: log, changed: changed, known: map[refKey]*watched{}, pods: map[types.UID]map[refKey]bool{},
	}
}

// run allows mirrors to exist until ctx ends.
func (r *references) run(ctx context.Context) {
	<-ctx.Done()
	r.mu.Lock()
	for _, w := range r.known {
		w.stop()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// acquire mirrors what the pod names, and forgets what it named before.
func (r *references) acquire(pod *corev1.Pod) {
	maps, secrets := volume.References(pod)
	want := make(map[refKey]bool, len(maps)+len(secrets))
	for _, n := range maps {
		want[refKey{false, pod.Namespace, n}] = true
	}
	for _, n := range secrets {
		want[refKey{true, pod.Namespace, n}] = true
	}
	r.set(pod.UID, want)
}

// release forgets what a pod named.
func (r *references) release(uid types.UID) { r.set(uid, nil) }

func (r *references) set(uid types.UID, want map[refKey]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range want {
		w := r.known[key]
		if w == nil {
			w = r.watch(key)
			r.known[key] = w
		}
		w.users[uid] = true
	}
	for key := range r.pods[uid] {
		w := r.known[key]
		if want[key] || w == nil {
			continue
		}
		delete(w.users, uid)
		if len(w.users) == 0 {
			w.stop()
			delete(r.known, key)
		}
	}
	if len(want) == 0 {
		delete(r.pods, uid)
		return
	}
	r.pods[uid] = want
}

// watch begins a mirror of one object. The caller holds the lock.
func (r *references) watch(key refKey) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{users: map[types.UID]bool{}, stop: cancel}
	if key.secret {
		mirror(ctx, r, w, key, client.Secrets)
	} else {
		mirror(ctx, r, w, key, client.ConfigMaps)
	}
	return w
}

func mirror[T client.Object](ctx context.Context, r *references, w *watched, key refKey, resource client.Resource[T]) {
	i := informer.New(r.transport, resource, informer.Options{
		Namespace: key.namespace, FieldSelector: "metadata.name=" + key.name, Log: r.log,
	})
	i.Subscribe(func(informer.Event[T]) { r.tell(key) })
	w.synced = i.Synced()
	w.get = func() (client.Object, bool) { return i.Get(key.namespace, key.name) }
	r.wg.Go(func() {
		if err := i.Run(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("stopped watching an object that pods use", "name", key.name, "namespace", key.namespace, "err", err)
		}
	})
}

// tell wakes the pods that use an object.
func (r *references) tell(key refKey) {
	r.mu.Lock()
	var users []types.UID
	if w := r.known[key]; w != nil {
		for uid := range w.users {
			users = append(users, uid)
		}
	}
	r.mu.Unlock()
	r.changed(users)
}

// ConfigMap implements volume.Source.
func (r *references) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	obj, err := r.get(ctx, refKey{false, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

// Secret implements volume.Source.
func (r *references) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	obj, err := r.get(ctx, refKey{true, namespace, name})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Secret), nil
}

func (r *references) get(ctx context.Context, key refKey) (client.Object, error) {
	word := "configmap"
	if key.secret {
		word = "secret"
	}
	r.mu.Lock()
	w := r.known[key]
	r.mu.Unlock()
	if w == nil {
		return nil, fmt.Errorf("%s %q is not one that the pod names", word, key.namespace+"/"+key.name)
	}
	timer := time.NewTimer(syncTimeout)
	defer timer.Stop()
	select {
	case <-w.synced:
	case <-timer.C:
		return nil, fmt.Errorf("failed to sync %s cache: timed out waiting for the condition", word)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	obj, ok := w.get()
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: word}, key.name)
	}
	return obj, nil
}
