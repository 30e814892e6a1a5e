package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How a webhook is sent events; upstream's numbers, but for retries, which are
// bounded.
const (
	webhookQueue = 10_000
	webhookBatch = 400
	webhookWait  = 30 * time.Second
	// sendEvery is the least time between two batches.
	sendEvery = 100 * time.Millisecond
	// webhookTries and webhookPause bound the sending of one batch.
	webhookTries   = 5
	webhookPause   = 10 * time.Second
	webhookTimeout = 30 * time.Second
	// webhookBytes bounds a batch.
	webhookBytes = 10 << 20
)

// Webhook is a Sink that posts batches of events. When the other side is too slow,
// events are dropped, and counted.
type Webhook struct {
	url    string
	client *http.Client
	log    *slog.Logger
	queue  chan []byte
	lost   atomic.Int64
	failed atomic.Int64 // events that never arrive, for whatever reason
	cancel context.CancelFunc
	done   chan struct{}
}

// OpenWebhook begins to send to the server of the kubeconfig at path.
func OpenWebhook(path string, log *slog.Logger) (*Webhook, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("audit webhook %q: %w", path, err)
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("audit webhook %q: %w", path, err)
	}
	client.Timeout = webhookTimeout
	return newWebhook(strings.TrimSuffix(cfg.Host, "/"), client, log), nil
}

func newWebhook(url string, client *http.Client, log *slog.Logger) *Webhook {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Webhook{url: url, client: client, log: log, queue: make(chan []byte, webhookQueue), cancel: cancel, done: make(chan struct{})}
	go w.run(ctx)
	return w
}

// Write queues one event.
func (w *Webhook) Write(event []byte) {
	select {
	case w.queue <- bytes.Clone(event):
	default:
		w.failed.Add(1)
		if w.lost.Add(1) == 1 {
			w.log.Warn("the audit webhook is too slow: events are dropped")
		}
	}
}

// Close sends what is queued, once, and ends.
func (w *Webhook) Close() error {
	w.cancel()
	<-w.done
	w.client.CloseIdleConnections()
	return nil
}

func (w *Webhook) run(ctx context.Context) {
	defer close(w.done)
	for {
		batch, open := w.collect(ctx)
		if len(batch) > 0 {
			w.send(ctx, batch)
		}
		if !open {
			return
		}
	}
}

// collect waits for the first event, and then until a batch is full or its time is
// up. open is false when ctx has ended and the queue is empty.
func (w *Webhook) collect(ctx context.Context) (batch []json.RawMessage, open bool) {
	var first []byte
	select {
	case first = <-w.queue:
	default:
		select {
		case first = <-w.queue:
		case <-ctx.Done():
			return nil, false
		}
	}
	batch, size := []json.RawMessage{first}, len(first)
	timer := time.NewTimer(webhookWait)
	defer timer.Stop()
	stop := ctx.Done()
	for len(batch) < webhookBatch && size < webhookBytes {
		select {
		case e := <-w.queue:
			batch, size = append(batch, e), size+len(e)
			continue
		default:
		}
		select {
		case e := <-w.queue:
			batch, size = append(batch, e), size+len(e)
		case <-timer.C:
			return batch, true
		case <-stop:
			return batch, len(w.queue) > 0
		}
	}
	return batch, true
}

// send posts one batch, a few times if need be; once when ctx has ended.
func (w *Webhook) send(ctx context.Context, batch []json.RawMessage) {
	body, err := json.Marshal(eventList{Kind: "EventList", APIVersion: apiVersion, Items: batch})
	if err != nil {
		w.log.Error("encode audit events", "error", err)
		return
	}
	for try := 1; ; try++ {
		if err = w.post(body); err == nil {
			pause(ctx, sendEvery)
			return
		}
		if try == webhookTries || ctx.Err() != nil {
			break
		}
		pause(ctx, webhookPause<<(try-1))
	}
	w.failed.Add(int64(len(batch)))
	w.log.Warn("audit events are lost", "count", len(batch), "error", err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (w *Webhook) post(body []byte) error {
	r, err := http.NewRequest(http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := w.client.Do(r)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)) // so that the connection can be used again
	if err := answer.Body.Close(); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answers %s", answer.Status)
	}
	return nil
}
