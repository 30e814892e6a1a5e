package sim_test

import (
	"context"
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
	"github.com/sampan-dev/sampan/client/lease"
	"github.com/sampan-dev/sampan/internal/target"
)

// leaders are servers that stand for the same office on one API server.
type leaders struct {
	t     *testing.T
	admin client.Transport
	begin time.Time
	mu    sync.Mutex
	log   []string
}

func (l *leaders) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = append(l.log, fmt.Sprintf("%3.0fs ", time.Since(l.begin).Seconds())+fmt.Sprintf(format, args...))
}

// killable is a connection that ends with its process.
type killable struct {
	client.Transport
	killed context.Context
}

func (k *killable) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	if k.killed.Err() != nil {
		return nil, k.killed.Err()
	}
	return k.Transport.Update(ctx, t, obj, opts)
}

// stand has a server take part until ctx ends; killed, it can't say good-bye.
func (l *leaders) stand(ctx, killed context.Context, server string) {
	_ = lease.Run(ctx, lease.Config{
		Transport: &killable{Transport: l.admin, killed: killed}, Namespace: metav1.NamespaceSystem, Name: "kube-controller-manager",
		Identity: server, Log: slog.New(slog.DiscardHandler),
	}, func(ctx context.Context) error {
		l.note("%s leads", server)
		<-ctx.Done()
		l.note("%s stops", server)
		return nil
	})
}

func (l *leaders) expect(want ...string) {
	l.t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.log, want) {
		l.t.Errorf("got\n%s\nwant\n%s", strings.Join(l.log, "\n"), strings.Join(want, "\n"))
	}
}

// Of several servers one leads. When it is killed, another leads as soon as the
// lease has expired; when it comes back at once, as the same candidate, it leads
// at once; and when it ends well, its successor need not wait.
func TestLeadersHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		l := &leaders{t: t, admin: p.admin, begin: time.Now()}
		one, kill1 := context.WithCancel(t.Context())
		go l.stand(one, one, "one")
		synctest.Wait()
		two, kill2 := context.WithCancel(t.Context())
		go l.stand(two, two, "two")
		time.Sleep(time.Minute)
		l.expect("  0s one leads")
		kill1()
		time.Sleep(time.Minute)
		l.expect("  0s one leads", " 60s one stops", " 75s two leads")
		kill2()
		synctest.Wait()
		again, end := context.WithCancel(t.Context())
		go l.stand(again, t.Context(), "two")
		go l.stand(t.Context(), t.Context(), "three")
		l.expect("  0s one leads", " 60s one stops", " 75s two leads", "120s two stops", "120s two leads")
		end()
		l.expect("  0s one leads", " 60s one stops", " 75s two leads", "120s two stops", "120s two leads",
			"120s two stops", "120s three leads")
	})
}
