// Package etcd is the store for clusters that have to last: etcd, either inside
// this process, without sockets or serialisation (Start), or on servers of its
// own (Open). Both give the same Store.
//
// Keys are laid out as upstream Kubernetes does when callers name them so
// ("/registry/pods/default/x"): an existing cluster's data can be opened, and
// etcd's own tools understand it.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/control/store"
)

const (
	// dialTimeout is how long one attempt to reach an external server may take.
	dialTimeout = 20 * time.Second
	// keepAlive is how often an idle connection is tried, and how long the answer
	// may take: upstream's values, which etcd's servers are known to allow.
	keepAlive        = 30 * time.Second
	keepAliveTimeout = 10 * time.Second
)

// Config says where external servers are.
type Config struct {
	// Endpoints are URLs: "https://10.0.0.1:2379", "unix:///run/etcd.sock".
	Endpoints []string
	// TLS proves who we are and checks who they are; nil: plain text.
	TLS *tls.Config
	// Prefix is put in front of every key and taken off again. Empty unless
	// several clusters share the servers: callers' keys begin with /registry/.
	Prefix string
	// Log hears etcd's warnings; nil means slog.Default.
	Log *slog.Logger
}

// Store is a store.Store above an etcd client.
type Store struct {
	client   *clientv3.Client
	prefix   string
	leases   *leases
	done     chan struct{}
	closed   atomic.Bool
	watchers atomic.Uint64 // how many there have been: each has its own stream

	// reading are the options of reads, and here reads single keys, where the only
	// member is in this process; see beHere.
	reading []clientv3.OpOption
	here    *here
}

var (
	_ store.Sized   = (*Store)(nil)
	_ store.Checked = (*Store)(nil)
)

// Open connects to external servers. It returns at once; a server that cannot be
// reached shows in the calls.
func Open(cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open etcd: no endpoints")
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAlive,
		DialKeepAliveTimeout: keepAliveTimeout,
		Logger:               bridge(cfg.Log),
	})
	if err != nil {
		return nil, fmt.Errorf("open etcd at %q: %w", cfg.Endpoints, err)
	}
	return newStore(client, cfg.Prefix), nil
}

func newStore(client *clientv3.Client, prefix string) *Store {
	return &Store{client: client, prefix: prefix, leases: newLeases(client), done: make(chan struct{})}
}

// beHere makes reads skip consensus, and writes etcd's client. A cluster of one
// member, in this process, has applied a write before it acknowledges it: what it has
// is the latest there is, so that its local reads are linearizable too.
func (s *Store) beHere(h *here) {
	s.reading, s.here = []clientv3.OpOption{clientv3.WithSerializable()}, h
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, int64, error) {
	if err := s.enter(ctx); err != nil {
		return store.Entry{}, 0, fmt.Errorf("get %q: %w", key, err)
	}
	if s.here != nil {
		return s.getHere(ctx, key)
	}
	resp, err := s.client.Get(ctx, s.prefix+key)
	if err != nil {
		return store.Entry{}, 0, fmt.Errorf("get %q: %w", key, s.kind(ctx, err))
	}
	if len(resp.Kvs) == 0 {
		return store.Entry{}, resp.Header.GetRevision(), fmt.Errorf("get %q: %w", key, store.ErrNotFound)
	}
	return s.entry(resp.Kvs[0]), resp.Header.GetRevision(), nil
}

func (s *Store) getHere(ctx context.Context, key string) (store.Entry, int64, error) {
	if err := s.here.awake(ctx); err != nil {
		return store.Entry{}, 0, fmt.Errorf("get %q: %w", key, err)
	}
	kv, revision, err := s.here.get(ctx, s.prefix+key, 0)
	switch {
	case err != nil:
		return store.Entry{}, 0, fmt.Errorf("get %q: %w", key, s.kind(ctx, err))
	case kv == nil:
		return store.Entry{}, revision, fmt.Errorf("get %q: %w", key, store.ErrNotFound)
	}
	return s.entry(kv), revision, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string, opts store.ListOptions) (store.Listing, error) {
	if err := s.enter(ctx); err != nil {
		return store.Listing{}, fmt.Errorf("list %q: %w", prefix, err)
	}
	from := s.prefix + max(prefix, opts.From)
	resp, err := s.client.Get(ctx, from, append(s.reading[:len(s.reading):len(s.reading)],
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix+prefix)),
		clientv3.WithLimit(int64(opts.Limit)),
		clientv3.WithRev(opts.Revision))...)
	if err != nil {
		return store.Listing{}, fmt.Errorf("list %q: %w", prefix, s.kind(ctx, err))
	}
	listing := store.Listing{
		Entries:   make([]store.Entry, 0, len(resp.Kvs)),
		Revision:  resp.Header.GetRevision(),
		More:      resp.More,
		Remaining: resp.Count - int64(len(resp.Kvs)),
	}
	if opts.Revision != 0 {
		listing.Revision = opts.Revision
	}
	for _, kv := range resp.Kvs {
		listing.Entries = append(listing.Entries, s.entry(kv))
	}
	return listing, nil
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("read revision: %w", err)
	}
	if s.here != nil {
		if err := s.here.awake(ctx); err != nil {
			return 0, fmt.Errorf("read revision: %w", err)
		}
		return s.here.kv.Rev(), nil
	}
	// Any linearizable read tells the revision; this one finds nothing.
	resp, err := s.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("read revision: %w", s.kind(ctx, err))
	}
	return resp.Header.GetRevision(), nil
}

// RevisionNow implements store.Prompt, where the only member is in this process.
func (s *Store) RevisionNow() (int64, bool) {
	if s.here == nil || s.closed.Load() || s.here.still.Load() {
		return 0, false
	}
	return s.here.kv.Rev(), true
}

// Check implements store.Checked. Where the only member is in this process, the disk that
// it writes to is tried: what etcd itself says is its memory's word until a write is given up.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.Revision(ctx)
	if err == nil && s.here != nil {
		err = s.here.pulse.feel(ctx)
	}
	return err
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if err := s.enter(ctx); err != nil {
		return fmt.Errorf("compact at %d: %w", rev, err)
	}
	if _, err := s.client.Compact(ctx, rev); err != nil {
		return fmt.Errorf("compact at %d: %w", rev, s.kind(ctx, err))
	}
	return nil
}

// Close implements store.Store. It may be called more than once. It leaves an
// embedded server running: Server.Close ends that.
func (s *Store) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	close(s.done)
	if s.here != nil {
		s.here.end()
	}
	// A client without a connection says "canceled" when it is closed.
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// enter says whether a call may proceed.
func (s *Store) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.closed.Load() {
		return store.ErrClosed
	}
	return nil
}

// kind adds the store's own kind to an error of etcd's.
func (s *Store) kind(ctx context.Context, err error) error {
	switch {
	case s.closed.Load():
		return store.ErrClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", store.ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("%w: %w", store.ErrFuture, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	case errors.Is(err, rpctypes.ErrStopped):
		return fmt.Errorf("%w: %w", store.ErrClosed, err)
	case errors.Is(err, rpctypes.ErrTimeout), errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail),
		errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost), errors.Is(err, rpctypes.ErrTimeoutWaitAppliedIndex):
		// Etcd has given up before the caller, as where the disk stands still: it may
		// have happened all the same, which is what a deadline means.
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// entry makes an entry of etcd's key and value, which is shared, not copied.
func (s *Store) entry(kv *mvccpb.KeyValue) store.Entry {
	return store.Entry{
		Key:      uncopied(kv.Key[len(s.prefix):]),
		Value:    kv.Value,
		Revision: kv.ModRevision,
		Created:  kv.CreateRevision,
	}
}

// Size implements store.Sized.
func (s *Store) Size(ctx context.Context) (int64, error) {
	at := ""
	if all := s.client.Endpoints(); len(all) > 0 {
		at = all[0]
	}
	status, err := s.client.Status(ctx, at)
	if err != nil {
		return 0, fmt.Errorf("status of etcd: %w", err)
	}
	return status.DbSize, nil
}
