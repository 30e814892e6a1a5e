// Package garbage removes images that nothing on the node uses: when their file
// system is fuller than it should be, the longest unused first, and when they
// have been unused for longer than they may be. What a container was made of, what
// the engine has pinned, what the caller asks to keep and what was first seen
// only just now is never removed. The rules are upstream's.
package garbage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Why images are removed.
const (
	forSpace = "space"
	forAge   = "age"
)

// Every is how often images are looked at, upstream's period.
const Every = 5 * time.Minute

// Config is what New needs.
type Config struct {
	Engine cri.Engine
	// High and Low are percentages: from High on images are removed until Low.
	// High 100 switches that off.
	High, Low int
	// MinAge is how long an image is left alone after it was first seen; MaxAge
	// how long it may be unused, 0 for as long as it likes.
	MinAge, MaxAge time.Duration
	// Space is what there is of the images' file system, in bytes.
	Space func(context.Context) (capacity, available int64, ok bool)
	// Keep are IDs, tags or digests that are about to be used.
	Keep func(context.Context) map[string]bool
	// Left is told which images there are, by ID, after some may have been removed, and
	// when that was asked; it may be nil.
	Left func(ids map[string]bool, asked time.Time)
	// Removed is told of every image that was removed, and why: for space or for age. It
	// may be nil.
	Removed func(why string)
	// Warn records an event about the node.
	Warn func(reason, message string)
	Log  *slog.Logger
}

// record is what is known of one image.
type record struct {
	first, used time.Time
	size        int64
	pinned      bool
	names       []string
}

// Images keeps the images of one engine in bounds. Its methods may be called from
// any goroutine.
type Images struct {
	cfg Config

	mu    sync.Mutex
	known map[string]record
	begun time.Time
}

// New returns a collector that has seen nothing yet.
func New(cfg Config) *Images { return &Images{cfg: cfg, known: map[string]record{}} }

// Run collects now and then, until ctx ends.
func (g *Images) Run(ctx context.Context) error {
	g.mu.Lock()
	g.begun = time.Now()
	g.mu.Unlock()
	timer := time.NewTimer(Every)
	defer timer.Stop()
	for {
		// Looking alone, at first: ages count from when the agent saw an image.
		if _, err := g.look(ctx); err != nil && ctx.Err() == nil {
			g.cfg.Log.Warn("can't look at images", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			timer.Reset(Every)
		}
		if err := g.Collect(ctx); err != nil && ctx.Err() == nil {
			g.cfg.Log.Warn("image garbage collection failed", "err", err)
			g.cfg.Warn("ImageGCFailed", err.Error())
		}
	}
}

// look brings what is known up to date and returns the images in use.
func (g *Images) look(ctx context.Context) (map[string]bool, error) {
	list, err := g.cfg.Engine.ListImages(ctx, &rt.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	containers, err := g.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	refs := map[string]bool{}
	for _, c := range containers.GetContainers() {
		refs[c.GetImageId()], refs[c.GetImageRef()], refs[c.GetImage().GetImage()] = true, true, true
	}
	for ref := range g.cfg.Keep(ctx) {
		refs[ref] = true
	}
	delete(refs, "")
	g.mu.Lock()
	defer g.mu.Unlock()
	now, next, used := time.Now(), map[string]record{}, map[string]bool{}
	for _, i := range list.GetImages() {
		r, seen := g.known[i.GetId()]
		if !seen {
			r.first = now
		}
		r.size, r.pinned = int64(i.GetSize()), i.GetPinned()
		r.names = slices.Concat(i.GetRepoTags(), i.GetRepoDigests())
		if refs[i.GetId()] || slices.ContainsFunc(r.names, func(n string) bool { return refs[n] }) {
			r.used, used[i.GetId()] = now, true
		}
		next[i.GetId()] = r
	}
	g.known = next
	return used, nil
}

// Collect removes what is too old, and as much else as is needed.
func (g *Images) Collect(ctx context.Context) error {
	now := time.Now()
	used, err := g.look(ctx)
	if err != nil {
		return err
	}
	defer g.tell(now)
	candidates := g.candidates(used)
	left, err := g.expire(ctx, candidates, now)
	capacity, available, ok := g.cfg.Space(ctx)
	if !ok || capacity <= 0 {
		return errors.Join(err, errors.New("invalid capacity 0 on image filesystem"))
	}
	percent := 100 - int(available*100/capacity)
	if percent < g.cfg.High || g.cfg.High >= 100 {
		return err
	}
	wanted := capacity*int64(100-g.cfg.Low)/100 - available
	g.cfg.Log.Info("images' disk is fuller than it should be", "percent", percent, "threshold", g.cfg.High, "bytes", wanted)
	freed, failed := g.free(ctx, left, wanted, now)
	if freed < wanted {
		message := fmt.Sprintf("Insufficient free disk space on the node's image filesystem (%d%% of %s used). "+
			"Failed to free sufficient space by deleting unused images (freed %d bytes). "+
			"Investigate disk usage, as it could be used by active images, logs, volumes, or other data.", percent, gibibytes(capacity), freed)
		g.cfg.Warn("FreeDiskSpaceFailed", message)
		failed = errors.Join(failed, errors.New(message))
	}
	return errors.Join(err, failed)
}

// Empty removes every image that isn't in use, however young.
func (g *Images) Empty(ctx context.Context) error {
	now := time.Now()
	used, err := g.look(ctx)
	if err != nil {
		return err
	}
	defer g.tell(now)
	var failed []error
	for _, id := range g.candidates(used) {
		failed = append(failed, g.remove(ctx, id, forSpace))
	}
	return errors.Join(failed...)
}

// tell says what is left of the images that were seen.
func (g *Images) tell(asked time.Time) {
	if g.cfg.Left == nil {
		return
	}
	g.mu.Lock()
	ids := make(map[string]bool, len(g.known))
	for id := range g.known {
		ids[id] = true
	}
	g.mu.Unlock()
	g.cfg.Left(ids, asked)
}

// candidates are the images that may go, the longest unused first.
func (g *Images) candidates(used map[string]bool) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []string
	for id, r := range g.known {
		if !used[id] && !r.pinned {
			list = append(list, id)
		}
	}
	slices.SortFunc(list, func(a, b string) int {
		x, y := g.known[a], g.known[b]
		return cmp.Or(x.used.Compare(y.used), x.first.Compare(y.first), cmp.Compare(a, b))
	})
	return list
}

func (g *Images) of(id string) record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[id]
}

// expire removes what has been unused for too long, and returns the rest. Nobody
// knows how long images were unused before the agent ran that long itself.
func (g *Images) expire(ctx context.Context, list []string, now time.Time) ([]string, error) {
	g.mu.Lock()
	watched := now.Sub(g.begun)
	g.mu.Unlock()
	if g.cfg.MaxAge == 0 || watched <= g.cfg.MaxAge {
		return list, nil
	}
	var left []string
	var failed []error
	for _, id := range list {
		r := g.of(id)
		if last := later(r.used, r.first); now.Sub(last) > g.cfg.MaxAge {
			failed = append(failed, g.remove(ctx, id, forAge))
			continue
		}
		left = append(left, id)
	}
	return left, errors.Join(failed...)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (g *Images) free(ctx context.Context, list []string, wanted int64, now time.Time) (int64, error) {
	freed := int64(0)
	var failed []error
	for _, id := range list {
		r := g.of(id)
		if freed >= wanted {
			break
		}
		if now.Sub(r.first) < g.cfg.MinAge {
			continue
		}
		if err := g.remove(ctx, id, forSpace); err != nil {
			failed = append(failed, err)
			continue
		}
		freed += r.size
	}
	return freed, errors.Join(failed...)
}

func (g *Images) remove(ctx context.Context, id, why string) error {
	r := g.of(id)
	if _, err := g.cfg.Engine.RemoveImage(ctx, &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: id}}); err != nil {
		return fmt.Errorf("remove image %q: %w", id, err)
	}
	g.cfg.Log.Info("removed an unused image", "image", id, "names", r.names, "bytes", r.size)
	if g.cfg.Removed != nil {
		g.cfg.Removed(why)
	}
	g.mu.Lock()
	delete(g.known, id)
	g.mu.Unlock()
	return nil
}

func gibibytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
