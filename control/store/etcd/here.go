package etcd

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"golang.org/x/sync/singleflight"

	"github.com/sampan-dev/sampan/control/store"
)

// here reads single keys of a member in this process, and is its way to watch. Etcd's own way to its
// database first copies the list of all that has been written since the latest
// batch commit, up to ten thousand entries, after each write anew: so that long
// reads do not hold up writes. To look up one key takes less than the copy.
type here struct {
	kv mvcc.WatchableKV
	// member takes writes, for which etcd itself sees to who comes too late, as long
	// as the quota says that there is room; guard takes those for which there is none,
	// and raises etcd's alarm.
	member member
	quota  storage.Quota
	guard  member
	room   *room

	// still says that a write was given up, and that no read has come back since: where the
	// disk stands still, those that follow wait for a lock that knows of no deadline.
	still  atomic.Bool
	waking singleflight.Group
	pulse  *pulse

	ending sync.RWMutex // held by readers: the database must not end under them
	ended  bool
}

// member is the part of etcd's server that takes transactions.
type member interface {
	Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error)
}

// swap makes a transaction of swapping's. What etcd's own front looks for in those of
// strangers, keys that are missing or written twice, is not in it.
//
// Whoever gives up meanwhile still hears what becomes of it, when that is known: within
// milliseconds, or when etcd itself gives up, after some six seconds. Contexts that many
// writes have in common would be a lock that all of them take twice.
func (h *here) swap(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	ctx := context.Background()
	if err := h.room.check(len(r.GetFailure()) == 0); err != nil { // nothing is asked for when a new key is taken
		return nil, err
	}
	if !h.quota.Available(r) {
		resp, err := h.guard.Txn(ctx, r)
		return resp, rpctypes.Error(err)
	}
	resp, err := h.member.Txn(ctx, r)
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(err, lease.ErrLeaseNotFound):
		return nil, rpctypes.ErrLeaseNotFound
	case errors.Is(err, etcderrors.ErrNoSpace):
		return nil, rpctypes.ErrNoSpace
	case errors.Is(err, etcderrors.ErrTimeout):
		h.still.Store(true)
	}
	return nil, rpctypes.Error(err) // the others have the words that they have over the wire
}

// awake returns at once, but where the store stands still: there it waits until reads come
// back, or ctx ends. One goroutine tries for all that wait.
func (h *here) awake(ctx context.Context) error {
	if !h.still.Load() {
		return nil
	}
	back := h.waking.DoChan("", func() (any, error) {
		rev := h.kv.Rev()
		h.still.Store(false)
		return rev, nil
	})
	select {
	case <-back:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// get is the key as revision left it (0: as it is), nil when there was none, and
// the revision of the store.
func (h *here) get(ctx context.Context, key string, revision int64) (*mvccpb.KeyValue, int64, error) {
	h.ending.RLock()
	defer h.ending.RUnlock()
	if h.ended {
		return nil, 0, store.ErrClosed
	}
	txn := h.kv.Read(mvcc.SharedBufReadTxMode, traceutil.TODO())
	defer txn.End()
	found, err := txn.Range(ctx, []byte(key), nil, mvcc.RangeOptions{Rev: revision})
	if err != nil || len(found.KVs) == 0 {
		return nil, txn.Rev(), err
	}
	return found.KVs[0], found.Rev, nil
}

// revision is the store's, as readers see it.
func (h *here) revision() int64 {
	h.ending.RLock()
	defer h.ending.RUnlock()
	if h.ended {
		return math.MaxInt64 // nobody will read
	}
	return h.kv.Rev()
}

// end waits for readers and lets in no more.
func (h *here) end() {
	h.ending.Lock()
	defer h.ending.Unlock()
	h.ended = true
}
