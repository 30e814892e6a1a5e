package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/internal/target"
)

// nodesTarget is the collection of nodes.
var nodesTarget = target.Of(client.Nodes.GroupVersionResource, "")

const (
	// payload is the size of a ConfigMap's one value.
	payload = 2 << 10
	// writeFor is how long each number of clients writes.
	writeFor = 5 * time.Second
)

// writes compares ConfigMap creates over HTTPS with puts of the same size into
// the same kind of etcd, in turn, for several numbers of clients.
func writes(ctx context.Context) (rows []row, err error) {
	c, err := up(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := c.down(ctx); err == nil {
			err = e
		}
	}()
	raw, stop, err := rawStore(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, clients := range []int{1, 8, 32} {
		puts, err := rate(ctx, clients, func(ctx context.Context, i int64) error {
			_, err := raw.Create(ctx, fmt.Sprintf("/registry/configmaps/bench/%d-%d", clients, i), bytes.Repeat([]byte("x"), payload+300), 0)
			return err
		})
		if err != nil {
			return nil, err
		}
		before, err := c.usage(ctx)
		if err != nil {
			return nil, err
		}
		creates, err := rate(ctx, clients, func(ctx context.Context, i int64) error {
			_, err := client.ConfigMaps.Create(ctx, c, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("c-%d-%d", clients, i)},
				Data:       map[string]string{"value": string(bytes.Repeat([]byte("x"), payload))},
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		after, err := c.usage(ctx)
		if err != nil {
			return nil, err
		}
		each := float64((after.cpu - before.cpu).Microseconds()) / (creates * writeFor.Seconds())
		rows = append(rows, row{
			fmt.Sprintf("ConfigMap creates, %d clients", clients),
			fmt.Sprintf("%.0f a second, %.0f %% of %.0f raw puts; %.0f µs of processor each", creates, creates/puts*100, puts, each), ">= 70 %",
		})
	}
	return rows, nil
}

// rawStore is an embedded etcd with nothing in front of it.
func rawStore(ctx context.Context) (store.Store, func(), error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-raw-*")
	if err != nil {
		return nil, nil, err
	}
	server, err := etcd.Start(ctx, etcd.EmbedConfig{Dir: filepath.Join(dir, "etcd"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	return server.Store(), func() { _ = server.Close(); os.RemoveAll(dir) }, nil
}

// rate is how often a second some clients can do something at the same time.
func rate(ctx context.Context, clients int, do func(context.Context, int64) error) (float64, error) {
	return rateFor(ctx, clients, writeFor, do)
}

// rateFor is rate over a time of one's own.
func rateFor(ctx context.Context, clients int, span time.Duration, do func(context.Context, int64) error) (float64, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	begin := time.Now()
	for range clients {
		all.Go(func() {
			for time.Since(begin) < span && failed.Load() == nil {
				if err := do(ctx, next.Add(1)); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(next.Load()) / time.Since(begin).Seconds(), nil
}
