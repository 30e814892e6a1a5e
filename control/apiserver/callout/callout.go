// Package callout asks other servers for reviews: who somebody is, what they may
// do. Where such a server is, and how it knows us, is said by a kubeconfig file.
//
// Facts: upstream's authentication and authorization webhooks (the format of the
// file, how often a failed call is tried again).
package callout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Limits of a call.
const (
	// callWait bounds one attempt.
	callWait = 30 * time.Second
	// tries is how often a call is made; between two of them the wait grows.
	tries      = 5
	firstPause = 500 * time.Millisecond
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 4 << 20
)

// Server is one that gives reviews. Safe for concurrent use.
type Server struct {
	client *http.Client
	url    string
}

// Open reads the kubeconfig at path: its current context names the server.
func Open(path string) (*Server, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return New(cfg)
}

// New returns the server that cfg describes.
func New(cfg *rest.Config) (*Server, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = callWait
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("client of %q: %w", cfg.Host, err)
	}
	return &Server{client: client, url: cfg.Host}, nil
}

// Ask posts a review and decodes the answer. It tries again after failures of the
// connection and 5xx, until ctx ends.
func (s *Server) Ask(ctx context.Context, review, answer any) error {
	raw, err := json.Marshal(review)
	if err != nil {
		return fmt.Errorf("encode review: %w", err)
	}
	pause := firstPause
	for n := 1; ; n++ {
		again, err := s.once(ctx, raw, answer)
		if err == nil || !again || n == tries || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		pause += pause / 2
	}
}

func (s *Server) once(ctx context.Context, raw []byte, answer any) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(raw))
	if err != nil {
		return false, fmt.Errorf("ask %q: %w", s.url, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	got, err := s.client.Do(r)
	if err != nil {
		return true, fmt.Errorf("ask %q: %w", s.url, err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer))
	if err != nil {
		return true, fmt.Errorf("ask %q: %w", s.url, err)
	}
	if got.StatusCode < http.StatusOK || got.StatusCode >= http.StatusMultipleChoices {
		return got.StatusCode >= http.StatusInternalServerError || got.StatusCode == http.StatusTooManyRequests,
			fmt.Errorf("ask %q: status %d", s.url, got.StatusCode)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return false, fmt.Errorf("ask %q: decode answer: %w", s.url, err)
	}
	return false, nil
}
