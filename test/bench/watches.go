package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/store"
)

const (
	// watching is how many clients watch at the same time.
	watching = 100
	// stamp precedes the time of a write in an object that is watched.
	stamp = "written="
)

// watchers are clients that read a watch as fast as they can.
type watchers struct {
	delivered atomic.Int64
	late      delays
	cancel    context.CancelFunc
	all       sync.WaitGroup
}

// watches measures how many events reach watchers over HTTPS while clients write as
// fast as they can, and how late they come when fewer are written. The watchers
// share one connection, as those of one client-go program do, or have their own.
func watches(ctx context.Context) (rows []row, err error) {
	raw, stop, err := rawStore(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, own := range []bool{false, true} {
		b, err := serveApart(ctx)
		if err != nil {
			return nil, err
		}
		more, err := b.watched(ctx, raw, own)
		b.close()
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (b *bench) watched(ctx context.Context, raw store.Store, own bool) (rows []row, err error) {
	name := fmt.Sprintf("%d watchers on one connection", watching)
	if own {
		name = fmt.Sprintf("%d watchers on connections of their own", watching)
	}
	w, err := b.watch(ctx, own)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	for _, each := range []int{100, 300, 600} { // writes a second
		r, err := b.late(ctx, w, raw, each)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("%s, %d writes/s", name, each), r, "p99 <= 20 ms"})
	}
	w.reset()
	began, server := time.Now(), b.spent()
	written, err := b.hard(ctx)
	if err != nil {
		return nil, err
	}
	w.await(int64(written*measureFor.Seconds()) * watching * 99 / 100)
	speed := float64(w.delivered.Load()) / time.Since(began).Seconds()
	used := float64(b.spent()-server) / float64(w.delivered.Load()) / 1e3
	return append(rows, row{name + ", as many as can be written",
		fmt.Sprintf("%.0f deliveries/s at %.0f writes/s, %.1f µs of processor each", speed, written, used), ">= 100,000"}), nil
}

// turns is how often the floor and what stands on it are measured in turn.
const turns = 3

// late measures how late events come at so many writes a second. It counts from
// before the write, so the floor is what raw puts into the same kind of store take
// at the same pace, and what stands between is what the creates take.
func (b *bench) late(ctx context.Context, w *watchers, raw store.Store, each int) (string, error) {
	value := make([]byte, small+300)
	var puts, creates delays
	var spent, took time.Duration
	w.reset()
	for turn := range turns {
		err := steadily(ctx, each, *measureFor/turns, &puts, func(ctx context.Context, i int) error {
			_, err := raw.Create(ctx, fmt.Sprintf("/registry/configmaps/paced/%d-%d-%d", time.Now().UnixNano(), turn, i), value, 0)
			return err
		})
		if err != nil {
			return "", err
		}
		began, before := time.Now(), b.spent()
		begin := began.UnixNano()
		err = steadily(ctx, each, *measureFor/turns, &creates, func(ctx context.Context, i int) error {
			return b.put(ctx, fmt.Sprintf("s-%d-%d-%d", each, begin, i))
		})
		if err != nil {
			return "", err
		}
		w.await(int64(len(creates.all)) * watching)
		spent, took = spent+b.spent()-before, took+time.Since(began)
	}
	delivered := float64(w.delivered.Load())
	return fmt.Sprintf("%.0f deliveries/s, %s late (a create takes %s, a raw put %s), %.1f µs of processor each",
		delivered/took.Seconds(), &w.late, &creates, &puts, float64(spent)/delivered/1e3), nil
}

// delays are how long something took each time. Its methods may be called
// concurrently.
type delays struct {
	mu  sync.Mutex
	all []time.Duration
}

func (d *delays) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, took)
}

func (d *delays) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = d.all[:0]
}

// String tells the median, and what one in a hundred exceeds.
func (d *delays) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.all) == 0 {
		return "nothing"
	}
	slices.Sort(d.all)
	at := func(q float64) float64 {
		return float64(d.all[int(float64(len(d.all)-1)*q)].Microseconds()) / 1e3
	}
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", at(0.5), at(0.99))
}

// put writes one object that is watched.
func (b *bench) put(ctx context.Context, name string) error {
	o := object(name)
	o.Namespace = "kube-node-lease"
	o.Data["at"] = stamp + strconv.FormatInt(time.Now().UnixNano(), 10)
	_, err := client.ConfigMaps.Create(ctx, b.wire, o)
	return err
}

// steadily does something at an even pace, and notes how long it took.
func steadily(ctx context.Context, each int, span time.Duration, took *delays, do func(ctx context.Context, i int) error) error {
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	count := int(float64(each) * span.Seconds())
	begin := time.Now()
	queue := make(chan int, count)
	for range 8 {
		all.Go(func() {
			for i := range queue {
				began := time.Now()
				if err := do(ctx, i); err != nil {
					failed.Store(&err)
					return
				}
				took.add(time.Since(began))
			}
		})
	}
	for i := range count {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(each))))
		queue <- i
	}
	close(queue)
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// hard writes as much as can be written.
func (b *bench) hard(ctx context.Context) (float64, error) {
	begin := time.Now().UnixNano()
	return rateFor(ctx, 16, *measureFor, func(ctx context.Context, i int64) error {
		return b.put(ctx, fmt.Sprintf("h-%d-%d", begin, i))
	})
}

// watch starts the watchers and returns when all of them watch.
func (b *bench) watch(ctx context.Context, own bool) (*watchers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watchers{cancel: cancel}
	shared, err := b.transport()
	if err != nil {
		return nil, err
	}
	for range watching {
		way := shared
		if own {
			if way, err = b.transport(); err != nil {
				w.stop()
				return nil, err
			}
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.URL+"/api/v1/namespaces/kube-node-lease/configmaps?watch=1&resourceVersion=1", nil)
		if err != nil {
			w.stop()
			return nil, err
		}
		r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
		answer, err := way.Do(r)
		if err != nil {
			w.stop()
			return nil, err
		}
		w.all.Go(func() {
			defer answer.Body.Close()
			w.read(answer.Body)
		})
	}
	return w, nil
}

func (w *watchers) stop() {
	w.cancel()
	w.all.Wait()
}

func (w *watchers) reset() {
	w.late.reset()
	w.delivered.Store(0)
}

// await waits until so many events have been delivered, but not for ever.
func (w *watchers) await(want int64) {
	for begin := time.Now(); w.delivered.Load() < want && time.Since(begin) < 10*(*measureFor); {
		time.Sleep(time.Millisecond)
	}
}

// sampledLate: of so many deliveries, one is timed.
const sampledLate = 8

// read counts the frames of a protobuf watch until it ends.
func (w *watchers) read(from io.Reader) {
	head := make([]byte, 4)
	var frame []byte
	for n := 0; ; n++ {
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		size := int(head[0])<<24 | int(head[1])<<16 | int(head[2])<<8 | int(head[3])
		frame = slices.Grow(frame[:0], size)[:size]
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		w.delivered.Add(1)
		if n%sampledLate != 0 {
			continue
		}
		if at, err := stamped(frame); err == nil {
			w.late.add(time.Since(at))
		}
	}
}

func stamped(frame []byte) (time.Time, error) {
	_, rest, ok := bytes.Cut(frame, []byte(stamp))
	if !ok || len(rest) < 19 {
		return time.Time{}, errors.New("no time in the event")
	}
	nano, err := strconv.ParseInt(string(rest[:19]), 10, 64)
	return time.Unix(0, nano), err
}
