package etcd

import (
	"context"
	"math"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/sampan-dev/sampan/control/store"
)

// here reads single keys of a member in this process, and is its way to watch. Etcd's own way to its
// database first copies the list of all that has been written since the latest
// batch commit, up to ten thousand entries, after each write anew: so that long
// reads do not hold up writes. To look up one key takes less than the copy.
type here struct {
	kv mvcc.WatchableKV
	// server takes writes, for which etcd itself sees to who comes too late.
	server pb.KVServer

	ending sync.RWMutex // held by readers: the database must not end under them
	ended  bool
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
