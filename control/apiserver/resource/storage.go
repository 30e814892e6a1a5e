package resource

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// Transformer changes bytes on their way to and from the store: encryption at
// rest. key is the store's key, which binds the bytes to their place. stale says
// that the bytes should be written again (sealed with an old key, or not at all).
type Transformer interface {
	Seal(key string, plain []byte) (sealed []byte, err error)
	Open(key string, sealed []byte) (plain []byte, stale bool, err error)
}

// storage is where the objects of one kind live: below one prefix of the store,
// mirrored by one cache. Kinds that view the same objects share it.
type storage struct {
	server *Server
	kind   *kinds.Kind // the stored one
	prefix string      // "/registry/pods/"
	seal   Transformer
	recent *recent
	// computed gives the objects of a kind that is not stored; nil for others.
	computed Computed

	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex // guards mirror's making
	mirror *cache.Cache
}

// record is one object as some revision left it. Everything in it is shared and
// read-only.
type record struct {
	obj      kinds.Object // with its resourceVersion
	revision int64
	plain    []byte // the stored bytes, opened; nil when not at hand
	stale    bool
	entry    *cache.Entry // nil when the cache has another revision, or none
}

func newStorage(s *Server, k *kinds.Kind) *storage {
	ctx, cancel := context.WithCancel(s.ctx)
	return &storage{
		server: s,
		kind:   k,
		prefix: s.cfg.Prefix + "/" + k.Storage + "/",
		seal:   s.transformer(k),
		recent: newRecent(),
		ctx:    ctx,
		cancel: cancel,
	}
}

// stop ends the cache, and with it the watches.
func (st *storage) stop() {
	if st != nil {
		st.cancel()
	}
}

// key is where an object lives in the store.
func (st *storage) key(namespace, name string) string {
	return st.prefix + cacheKey(namespace, name)
}

func cacheKey(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// live returns the cache, started and filled.
func (st *storage) live(ctx context.Context) (*cache.Cache, error) {
	c := st.start()
	select {
	case <-c.Ready():
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-st.ctx.Done():
		return nil, store.ErrClosed
	}
}

func (st *storage) start() *cache.Cache {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.mirror != nil {
		return st.mirror
	}
	cfg := cache.Config{
		Store:  st.server.cfg.Store,
		Feed:   st.server.feed(),
		Prefix: st.prefix,
		Decode: func(plain []byte) (runtime.Object, error) {
			return st.server.codec.load(st.ctx, plain, st.kind)
		},
		DecodeAll: st.decodeAll(),
		Fields:    st.selectable,
		Log:       st.server.cfg.Log,
	}
	if st.seal != nil {
		cfg.Open = func(key string, value []byte) ([]byte, error) {
			plain, _, err := st.open(key, value)
			return plain, err
		}
	}
	c := cache.New(cfg)
	st.mirror = c
	st.server.wg.Go(func() {
		if err := c.Run(st.ctx); err != nil && st.ctx.Err() == nil {
			st.server.cfg.Log.Error("watch cache ended", "storage", st.kind.Storage, "err", err)
		}
	})
	return c
}

// running returns the cache if it has been started and filled, else nil.
func (st *storage) running() *cache.Cache {
	st.mu.Lock()
	c := st.mirror
	st.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c.Ready():
		return c
	default:
		return nil
	}
}

func (st *storage) selectable(obj runtime.Object) fields.Set {
	if o, ok := obj.(kinds.Object); ok {
		return fieldSet(st.kind, o)
	}
	return nil
}

func (st *storage) open(key string, value []byte) (plain []byte, stale bool, err error) {
	if st.seal == nil {
		return value, false, nil
	}
	plain, stale, err = st.seal.Open(key, value)
	if err != nil {
		return nil, false, fmt.Errorf("open %q: %w", key, err)
	}
	return plain, stale, nil
}

// peek returns what the cache has, which may be a little old; nil when the cache
// is not running or has nothing.
func (st *storage) peek(ctx context.Context, namespace, name string) (*record, error) {
	c := st.running()
	if c == nil {
		return nil, nil
	}
	e, ok := c.Get(cacheKey(namespace, name))
	if !ok {
		return nil, nil
	}
	return st.entryRecord(ctx, c, e)
}

// base returns a cached copy to begin a write from; nil when there is none, or
// when this server has written since to what may be the same object.
func (st *storage) base(ctx context.Context, namespace, name string) *record {
	c := st.running()
	if c == nil || st.recent.after(st.key(namespace, name), c.Revision()) {
		return nil
	}
	have, err := st.peek(ctx, namespace, name)
	if err != nil {
		return nil // reading it tells why
	}
	return have
}

// read returns the object as the store has it now: out of the cache when that is
// known to be up to date. What it has already decoded of the same revision is used.
func (st *storage) read(ctx context.Context, namespace, name string) (*record, error) {
	key := st.key(namespace, name)
	if c := st.running(); c != nil && ctx.Err() == nil {
		if c.UpToDate() {
			e, found := c.Get(cacheKey(namespace, name))
			if !found {
				return nil, fmt.Errorf("get %q: %w", key, store.ErrNotFound)
			}
			return st.entryRecord(ctx, c, e)
		}
	}
	e, _, err := st.server.cfg.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if c := st.running(); c != nil {
		if cached, ok := c.Get(cacheKey(namespace, name)); ok && cached.Revision() == e.Revision {
			return st.entryRecord(ctx, c, cached)
		}
	}
	return st.recordOf(ctx, e)
}

func (st *storage) recordOf(ctx context.Context, e store.Entry) (*record, error) {
	plain, stale, err := st.open(e.Key, e.Value)
	if err != nil {
		return nil, err
	}
	obj, err := st.server.codec.load(ctx, plain, st.kind)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", e.Key, err)
	}
	setRevision(obj, e.Revision)
	return &record{obj: obj, revision: e.Revision, plain: plain, stale: stale}, nil
}

// bytes returns a record's stored bytes, opened.
func (st *storage) bytes(r *record) ([]byte, bool, error) {
	if r.plain != nil {
		return r.plain, r.stale, nil
	}
	return st.open(st.prefix+r.entry.Key(), r.entry.Raw())
}

// create stores a new object and sets its resourceVersion.
func (st *storage) create(ctx context.Context, obj kinds.Object) error {
	key := st.key(obj.GetNamespace(), obj.GetName())
	value, err := st.sealed(ctx, key, obj)
	if err != nil {
		return err
	}
	expecting, written := st.expect(key, value, obj, newObject)
	revision, err := st.server.cfg.Store.Create(ctx, key, value, st.ttl(obj))
	if err != nil {
		expecting.Forget(written)
		return err
	}
	st.recent.wrote(key, revision)
	setRevision(obj, revision)
	return nil
}

// replace stores value, the stored form of obj, in place of what revision expected left.
func (st *storage) replace(ctx context.Context, obj kinds.Object, is news, value []byte, expected int64) (int64, error) {
	key := st.key(obj.GetNamespace(), obj.GetName())
	expecting, written := st.expect(key, value, obj, is)
	revision, err := st.server.cfg.Store.Update(ctx, key, value, expected, st.ttl(obj))
	if err != nil {
		expecting.Forget(written)
		return 0, err
	}
	st.recent.wrote(key, revision)
	return revision, nil
}

func (st *storage) sealed(ctx context.Context, key string, obj kinds.Object) ([]byte, error) {
	plain, err := st.server.codec.store(ctx, obj, st.kind)
	if err != nil {
		return nil, err
	}
	return st.sealBytes(key, plain)
}

func (st *storage) sealBytes(key string, plain []byte) ([]byte, error) {
	value := plain
	if st.seal != nil {
		var err error
		if value, err = st.seal.Seal(key, plain); err != nil {
			return nil, fmt.Errorf("seal %q: %w", key, err)
		}
	}
	if len(value) > store.MaxValue {
		return nil, fmt.Errorf("%q: %w", key, store.ErrTooLarge)
	}
	return value, nil
}

func (st *storage) ttl(obj kinds.Object) time.Duration {
	if st.kind.TTL == nil {
		return 0
	}
	return st.kind.TTL(obj)
}

// fresh returns a snapshot that shows everything written before the call.
func (st *storage) fresh(ctx context.Context) (cache.Snapshot, error) {
	c, err := st.live(ctx)
	if err != nil {
		return cache.Snapshot{}, err
	}
	return c.Fresh(ctx)
}

func setRevision(obj kinds.Object, revision int64) {
	obj.SetResourceVersion(strconv.FormatInt(revision, 10))
}

func missing(err error) bool { return errors.Is(err, store.ErrNotFound) }
