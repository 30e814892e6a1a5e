package etcd

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.uber.org/zap"
)

// A member that has no time yet to hear that it is there is asked less often, and in
// silence; another reason is told.
func TestBusyPublishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		log := bridge(slog.New(slog.NewTextHandler(&said, nil)))
		tries := 0
		for began := time.Now(); time.Since(began) < time.Second; tries++ {
			log.Warn(unpublished, zap.Error(etcderrors.ErrTooManyRequests))
			if tries > 1_000 {
				t.Fatal("nothing holds it up")
			}
		}
		if said.Len() > 0 {
			t.Errorf("it was told: %s", said.String())
		}
		log.Warn(unpublished, zap.Error(errors.New("no leader")))
		if !strings.Contains(said.String(), "no leader") {
			t.Errorf("said %q", said.String())
		}
	})
}
