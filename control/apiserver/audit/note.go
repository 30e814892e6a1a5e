package audit

import (
	"context"
	"maps"
	"sync"
)

// MaxAnnotations bounds the annotations of one request, and MaxAnnotation the
// bytes of a value: what is beyond is dropped, for webhooks are strangers.
const (
	MaxAnnotations = 256
	MaxAnnotation  = 16 << 10
)

// notes are the annotations that a request's stations leave.
type notes struct {
	mu  sync.Mutex
	all map[string]string
}

// Annotate adds an annotation to the audit event of the request that ctx belongs
// to: why it was allowed, what a webhook changed. The first value of a key stays,
// as upstream. Without an audited request it does nothing. Safe for concurrent use.
func Annotate(ctx context.Context, key, value string) {
	r := From(ctx)
	if r == nil || len(value) > MaxAnnotation {
		return
	}
	n := &r.notes
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]string{}
	}
	if _, has := n.all[key]; has || len(n.all) >= MaxAnnotations {
		return
	}
	n.all[key] = value
}

// Wanted says whether annotations of the request that ctx belongs to go anywhere:
// who would work for a value may ask first.
func Wanted(ctx context.Context) bool { return From(ctx) != nil }

// Detailed says whether the event of the request that ctx belongs to is written at
// level, or with more: some annotations are only for those who see bodies, too.
func Detailed(ctx context.Context, level Level) bool {
	r := From(ctx)
	return r != nil && r.decision.Level.AtLeast(level)
}

func (n *notes) snapshot() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.all)
}

// take is snapshot for the last event: what is noted later goes nowhere.
func (n *notes) take() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}
