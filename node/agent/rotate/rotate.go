// Package rotate keeps container logs within bounds: a log that has grown past
// the size is renamed, the engine opens a new one, and old ones are compressed
// and then deleted. A container that writes nothing costs nothing: its log is
// watched by a one-shot inotify mark, and only after a write is it looked at,
// at most once in ten seconds.
package rotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/inotify"
	"github.com/sampan-dev/sampan/node/cri"
)

// lookAfter is the time from a write to a look at the log's size: a container
// may exceed its limit by what it writes in that time.
const lookAfter = 10 * time.Second

// stampFormat follows a rotated log's name, as upstream has it.
const stampFormat = "20060102-150405"

// Config is what New needs.
type Config struct {
	Engine cri.Engine
	// MaxSize is in bytes; below zero nothing is rotated or watched. MaxFiles
	// counts the current log too.
	MaxSize  int64
	MaxFiles int
	Log      *slog.Logger
}

// Rotator looks after the logs of running containers. Its methods may be called
// from any goroutine.
type Rotator struct {
	cfg Config

	mu      sync.Mutex
	watcher *inotify.Watcher  // nil while not running
	logs    map[string]*entry // by path
	marks   map[int32]string  // path by watch
	due     chan string
}

type entry struct{ id string }

// New returns a Rotator that does nothing before Run.
func New(cfg Config) *Rotator {
	waiting := maxDue
	if cfg.MaxSize < 0 { // nothing is looked after, by thousands of hollow nodes
		waiting = 0
	}
	return &Rotator{cfg: cfg, logs: map[string]*entry{}, marks: map[int32]string{}, due: make(chan string, waiting)}
}

// maxDue bounds the logs waiting for a look; those beyond it wait for their
// next write.
const maxDue = 1024

// Watch looks after a running container's log from now on; it may be called
// again.
func (r *Rotator) Watch(id, path string) {
	if r.cfg.MaxSize < 0 || path == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logs[path] != nil {
		return
	}
	r.logs[path] = &entry{id: id}
	r.mark(path)
}

// Forget stops looking after all logs under a directory.
func (r *Rotator) Forget(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path := range r.logs {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			delete(r.logs, path)
		}
	}
}

// mark asks to be told of the next write. The caller holds the lock.
func (r *Rotator) mark(path string) {
	if r.watcher == nil {
		return
	}
	// A log that isn't there (yet) is looked for again when its pod is.
	wd, err := r.watcher.Add(path, inotify.Modify|inotify.OneShot)
	if err != nil {
		delete(r.logs, path)
		return
	}
	r.marks[wd] = path
	// What was written before the mark may be too much already, and the last of it.
	if info, err := os.Stat(path); err == nil && info.Size() > r.cfg.MaxSize {
		r.later(path)
	}
}

// later has a log looked at after a while.
func (r *Rotator) later(path string) {
	time.AfterFunc(lookAfter, func() {
		select {
		case r.due <- path:
		default:
		}
	})
}

// Run rotates until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	if r.cfg.MaxSize < 0 {
		return nil
	}
	w, err := inotify.Open()
	if err != nil {
		return fmt.Errorf("watch container logs: %w", err)
	}
	defer w.Close()
	r.mu.Lock()
	r.watcher = w
	for path := range r.logs {
		r.mark(path)
	}
	r.mu.Unlock()
	for {
		select {
		case e := <-w.Events():
			r.written(e)
		case path := <-r.due:
			r.look(ctx, path)
		case <-ctx.Done():
			r.mu.Lock()
			r.watcher = nil
			r.mu.Unlock()
			return nil
		}
	}
}

// written has a log looked at, ten seconds after a write.
func (r *Rotator) written(e inotify.Event) {
	r.mu.Lock()
	path := r.marks[e.Watch]
	if e.Mask&inotify.Ignored != 0 {
		delete(r.marks, e.Watch)
	}
	r.mu.Unlock()
	if e.Mask&inotify.Modify != 0 && path != "" {
		r.later(path)
	}
}

func (r *Rotator) look(ctx context.Context, path string) {
	r.mu.Lock()
	e := r.logs[path]
	r.mu.Unlock()
	if e == nil {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Size() > r.cfg.MaxSize {
		if err := r.Rotate(ctx, e.id, path); err != nil {
			r.cfg.Log.Warn("can't rotate a container's log", "container", e.id, "log", path, "err", err)
		}
	}
	r.mu.Lock()
	if r.logs[path] != nil {
		r.mark(path)
	}
	r.mu.Unlock()
}

// Rotate renames a log, has the engine open a new one, compresses the older
// ones and deletes what is too many. If the engine can't open a new log the old
// one gets its name back, so that nothing is lost.
func (r *Rotator) Rotate(ctx context.Context, id, path string) error {
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	if err := r.thin(old); err != nil {
		return err
	}
	rotated := path + "." + time.Now().Format(stampFormat)
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rename log: %w", err)
	}
	if _, err := r.cfg.Engine.ReopenContainerLog(ctx, &rt.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("reopen log: %w", err), os.Rename(rotated, path))
		}
		return fmt.Errorf("reopen log: %w", err)
	}
	return nil
}

// thin deletes the oldest logs, leaving room for one more, and compresses what
// stays. Half-written archives are removed.
func (r *Rotator) thin(old []string) error {
	var keep []string
	for _, p := range old {
		if strings.HasSuffix(p, ".tmp") {
			if err := os.Remove(p); err != nil {
				return err
			}
			continue
		}
		keep = append(keep, p)
	}
	slices.Sort(keep)
	for room := r.cfg.MaxFiles - 2; len(keep) > max(room, 0); keep = keep[1:] {
		if err := os.Remove(keep[0]); err != nil {
			return fmt.Errorf("remove old log: %w", err)
		}
	}
	for _, p := range keep {
		if strings.HasSuffix(p, ".gz") {
			continue
		}
		if err := compress(p); err != nil {
			return fmt.Errorf("compress old log: %w", err)
		}
	}
	return nil
}

func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	if err = errors.Join(err, zip.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}
