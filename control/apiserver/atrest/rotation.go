package atrest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

// RotationPath is where a rotation is begun (POST) and told of (GET). Both answer
// with a Progress a line, until the rotation ends.
const RotationPath = "/sampan/secrets/rotation"

const (
	// page is how many entries are looked at at once.
	page = 500
	// maxRounds bounds how often all entries are looked through: each round
	// rewrites what the former found, and finds what was written meanwhile.
	maxRounds = 10
	// tellEvery bounds how often progress is told.
	tellEvery = 200 * time.Millisecond
)

// Progress is how far a rotation is.
type Progress struct {
	// State is idle, running, done or failed.
	State string `json:"state"`
	// Keys are the names of the keys, the one in use first.
	Keys []string `json:"keys"`
	// Total Secrets were found when it began, Done of them are sealed with the new
	// key.
	Total int `json:"total"`
	Done  int `json:"done"`
	// Error says why it failed; the keys are all kept then, and the next start of
	// the server, or the next rotation, goes on.
	Error string `json:"error,omitempty"`
}

// RotationConfig is all that a Rotation needs.
type RotationConfig struct {
	Ring  *Ring
	Store store.Store
	// Prefix is where the sealed entries lie: "/registry/secrets/".
	Prefix string
	// Rewrite writes an object again through the API; key follows Prefix:
	// "namespace/name". An object that is gone is no error.
	Rewrite func(ctx context.Context, key string) error
	Log     *slog.Logger
}

// Rotation changes the key of a Ring: a new key first, then everything written
// again, and the old keys dropped once nothing is sealed with them. Each step can
// be repeated; Run goes on where a former process ended.
type Rotation struct {
	cfg   RotationConfig
	begin chan struct{}

	mu      sync.Mutex
	now     Progress
	changed chan struct{} // closed and replaced when now changes
}

// NewRotation returns a Rotation; Run makes it work.
func NewRotation(cfg RotationConfig) *Rotation {
	return &Rotation{cfg: cfg, begin: make(chan struct{}, 1), now: Progress{State: "idle", Keys: cfg.Ring.Keys()}, changed: make(chan struct{})}
}

// Run waits for rotations and does them until ctx ends. What an earlier process
// left half done comes first.
func (r *Rotation) Run(ctx context.Context) error {
	if len(r.cfg.Ring.Keys()) > 1 {
		r.tell(func(p *Progress) { *p = Progress{State: "running"} })
		r.finish(r.rotate(ctx))
	}
	for {
		select {
		case <-r.begin:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		_, err := r.cfg.Ring.Advance()
		if err == nil {
			err = r.rotate(ctx)
		}
		r.finish(err)
	}
}

func (r *Rotation) finish(err error) {
	r.tell(func(p *Progress) {
		p.State, p.Error = "done", ""
		if err != nil {
			p.State, p.Error = "failed", err.Error()
		}
	})
	if err != nil {
		r.cfg.Log.Warn("rotate the keys of the secrets", "error", err)
		return
	}
	r.cfg.Log.Info("the secrets are sealed with a new key", "key", r.cfg.Ring.Keys()[0])
}

// tell changes the progress and wakes who follows it.
func (r *Rotation) tell(change func(*Progress)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.now)
	r.now.Keys = r.cfg.Ring.Keys()
	close(r.changed)
	r.changed = make(chan struct{})
}

// start begins a rotation unless one is under way.
func (r *Rotation) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now.State == "running" {
		return
	}
	r.now = Progress{State: "running", Keys: r.now.Keys}
	r.begin <- struct{}{} // never blocks: nothing runs, so it is empty
}

// rotate rewrites all that is not sealed with the key in use, until a whole look
// finds nothing, and then drops the other keys.
func (r *Rotation) rotate(ctx context.Context) error {
	for round := range maxRounds {
		found, err := r.round(ctx, round == 0)
		if err != nil {
			return err
		}
		if found == 0 {
			return r.cfg.Ring.Retire()
		}
	}
	return fmt.Errorf("after %d rounds there are still secrets with an old key", maxRounds)
}

// round looks at every entry once.
func (r *Rotation) round(ctx context.Context, first bool) (found int, err error) {
	opts := store.ListOptions{Limit: page}
	for {
		list, err := r.cfg.Store.List(ctx, r.cfg.Prefix, opts)
		if err != nil {
			return found, fmt.Errorf("look at the secrets: %w", err)
		}
		if first {
			r.tell(func(p *Progress) {
				p.Total = max(p.Total, p.Done+len(list.Entries)+int(list.Remaining))
			})
		}
		for _, e := range list.Entries {
			if !r.cfg.Ring.Current(e.Value) {
				found++
				if err := r.cfg.Rewrite(ctx, strings.TrimPrefix(e.Key, r.cfg.Prefix)); err != nil {
					return found, fmt.Errorf("rewrite secret %q: %w", strings.TrimPrefix(e.Key, r.cfg.Prefix), err)
				}
			}
			if first {
				r.tell(func(p *Progress) { p.Done++ })
			}
		}
		if !list.More || len(list.Entries) == 0 {
			return found, nil
		}
		opts.From, opts.Revision = list.Entries[len(list.Entries)-1].Key+"\x00", list.Revision
	}
}

// ServeHTTP begins a rotation, or only tells of it.
func (r *Rotation) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch req.Method {
	case http.MethodPost:
		r.start()
	case http.MethodGet:
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "a rotation is begun with POST", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	for {
		r.mu.Lock()
		now, changed := r.now, r.changed
		r.mu.Unlock()
		if enc.Encode(now) != nil || now.State != "running" {
			return
		}
		_ = http.NewResponseController(w).Flush() // not every writer streams
		pause := time.NewTimer(tellEvery)
		select {
		case <-changed:
		case <-req.Context().Done():
			pause.Stop()
			return
		}
		select {
		case <-pause.C:
		case <-req.Context().Done():
			pause.Stop()
			return
		}
	}
}
