package etcd

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/sampan-dev/sampan/control/store"
)

// What etcd says is told in the store's words, and that it has given up in Go's.
func TestKind(t *testing.T) {
	s := &Store{}
	for _, c := range []struct{ said, want error }{
		{etcderrors.ErrTimeout, context.DeadlineExceeded},
		{etcderrors.ErrTimeoutDueToLeaderFail, context.DeadlineExceeded},
		{etcderrors.ErrStopped, store.ErrClosed},
		{etcderrors.ErrRequestTooLarge, store.ErrTooLarge},
	} {
		if got := s.kind(t.Context(), rpctypes.Error(c.said)); !errors.Is(got, c.want) {
			t.Errorf("%v is told as %v", c.said, got)
		}
	}
	if got := s.kind(t.Context(), rpctypes.ErrNoSpace); !errors.Is(got, rpctypes.ErrNoSpace) || errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("a full disk is told as %v", got)
	}
}

// frozen is a store whose reads wait for a disk that stands still.
type frozen struct {
	mvcc.WatchableKV
	tries atomic.Int64
	thaw  chan struct{}
}

func (f *frozen) Rev() int64 { f.tries.Add(1); <-f.thaw; return 7 }

// After a write was given up reads end with their deadline, one of them tries for all, and
// afterwards all is as it was.
func TestStandingStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kv := &frozen{thaw: make(chan struct{})}
		s := &Store{here: &here{kv: kv}, done: make(chan struct{})}
		s.here.still.Store(true)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := s.Revision(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("revision: %v", err)
			}
			if _, _, err := s.Get(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("get: %v", err)
			}
			cancel()
		}
		if _, prompt := s.RevisionNow(); prompt {
			t.Error("the revision can be told at once")
		}
		if n := kv.tries.Load(); n != 1 {
			t.Errorf("%d goroutines wait", n)
		}
		close(kv.thaw)
		if rev, err := s.Revision(t.Context()); rev != 7 || err != nil {
			t.Errorf("after the thaw: %d, %v", rev, err)
		}
		if _, prompt := s.RevisionNow(); !prompt {
			t.Error("after the thaw the revision cannot be told at once")
		}
	})
}
