package image

import (
	"slices"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// maxPulls bounds the pulls that are remembered at once; further ones are not.
const maxPulls = 1024

// Pulls remembers how far pulls are, for those who ask. The zero value is ready;
// it may be used concurrently.
type Pulls struct {
	mu  sync.Mutex
	all map[*pull]struct{}
}

// pull is one under way for somebody.
type pull struct {
	owner, ref string
	since      time.Time
	layers     map[digest.Digest]Progress
}

// PullState is how far one pull is.
type PullState struct {
	Ref   string
	Since time.Time
	// Ready of Layers are here, Done of Total are bytes; all are 0 until the
	// manifest has come.
	Ready, Layers int
	Done, Total   int64
}

// Begin remembers a pull for an owner until end is called. tell is for
// TransferOptions.Progress.
func (p *Pulls) Begin(owner, ref string) (tell func(Progress), end func()) {
	one := &pull{owner: owner, ref: ref, since: time.Now(), layers: map[digest.Digest]Progress{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*pull]struct{}{}
	}
	if len(p.all) >= maxPulls {
		return func(Progress) {}, func() {}
	}
	p.all[one] = struct{}{}
	tell = func(at Progress) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if known, ok := one.layers[at.Layer]; !ok || known.Done <= at.Done {
			one.layers[at.Layer] = at
		}
	}
	return tell, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, one)
	}
}

// Of are an owner's pulls, the oldest first.
func (p *Pulls) Of(owner string) []PullState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []PullState
	for one := range p.all {
		if one.owner != owner {
			continue
		}
		s := PullState{Ref: one.ref, Since: one.since, Layers: len(one.layers)}
		for _, l := range one.layers {
			s.Done, s.Total = s.Done+l.Done, s.Total+l.Total
			if l.Present || l.Done == l.Total {
				s.Ready++
			}
		}
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b PullState) int { return a.Since.Compare(b.Since) })
	return found
}
