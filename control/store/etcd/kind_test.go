package etcd

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

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
