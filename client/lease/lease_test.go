package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/client/lease"
	"github.com/sampan-dev/sampan/internal/target"
)

// stage is where candidates act; it writes down who leads when.
type stage struct {
	start  time.Time
	server *clienttest.Memory
	mu     sync.Mutex
	cut    map[string]bool
	log    []string
}

func newStage() *stage {
	return &stage{start: time.Now(), server: clienttest.NewMemory(), cut: map[string]bool{}}
}

func (s *stage) note(who, what string) {
	s.mu.Lock()
	s.log = append(s.log, fmt.Sprintf("%v %s %s", time.Since(s.start), who, what))
	s.mu.Unlock()
}

// gate is one candidate's connection, which may be cut. The watch that is open
// stays open: a cut link does not tell.
type gate struct {
	client.Transport
	allow func() error
}

func (g *gate) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	if err := g.allow(); err != nil {
		return nil, err
	}
	return g.Transport.Get(ctx, t, opts)
}

func (g *gate) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	if err := g.allow(); err != nil {
		return nil, err
	}
	return g.Transport.Update(ctx, t, obj, opts)
}

func (s *stage) setCut(who string, cut bool) {
	s.mu.Lock()
	s.cut[who] = cut
	s.mu.Unlock()
}

func (s *stage) run(ctx context.Context, who string) {
	m := &gate{Transport: s.server, allow: func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cut[who] {
			return errors.New("link cut")
		}
		return nil
	}}
	_ = lease.Run(ctx, lease.Config{
		Transport: m, Namespace: "kube-system", Name: "controllers", Identity: who, Log: slog.New(slog.DiscardHandler),
	}, func(ctx context.Context) error {
		s.note(who, "leads")
		<-ctx.Done()
		s.note(who, "stops")
		return nil
	})
}

func (s *stage) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.log, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(s.log, "\n"), strings.Join(want, "\n"))
	}
}

func TestReleaseHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		ctx, quit := context.WithCancel(t.Context())
		go s.run(ctx, "a")
		synctest.Wait()
		go s.run(t.Context(), "b")
		time.Sleep(time.Minute)
		s.expect(t, "0s a leads")
		quit()
		s.expect(t, "0s a leads", "1m0s a stops", "1m0s b leads")
	})
}

// A leader that cannot renew has stopped before its successor starts.
func TestPartitionedLeaderStopsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage()
		go s.run(t.Context(), "a")
		synctest.Wait()
		go s.run(t.Context(), "b")
		time.Sleep(time.Minute + time.Second)
		s.setCut("a", true)
		time.Sleep(time.Minute)
		s.expect(t, "0s a leads", "1m10s a stops", "1m15s b leads")
		s.setCut("a", false)
		time.Sleep(time.Hour)
		s.expect(t, "0s a leads", "1m10s a stops", "1m15s b leads")
	})
}
