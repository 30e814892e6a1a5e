package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
)

// Limits of what is decoded in one call: a webhook must be able to answer it.
const (
	maxTogether      = 500
	maxTogetherBytes = 4 << 20
)

// Together decodes those of the entries that nobody has decoded yet, many in one
// call of Config.DecodeAll, and keeps what comes of it for as long as the entries
// live: it was dear. It ends with ctx. Without Config.DecodeAll it does nothing.
// The error is DecodeAll's own, or that an entry cannot be opened; entries of calls
// before the failed one stay decoded.
func (c *Cache) Together(ctx context.Context, entries ...*Entry) error {
	if c.cfg.DecodeAll == nil {
		return nil
	}
	if !anyDear(entries) {
		return nil
	}
	select {
	case c.together <- struct{}{}: // whoever asks for the same meanwhile finds it done
		defer func() { <-c.together }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var part []*Entry
	size := 0
	for _, e := range entries {
		if e == nil || e.kept() {
			continue
		}
		if len(part) == maxTogether || size > 0 && size+len(e.raw) > maxTogetherBytes {
			if err := c.decodeAll(ctx, part); err != nil {
				return err
			}
			part, size = nil, 0
		}
		part, size = append(part, e), size+len(e.raw)
	}
	return c.decodeAll(ctx, part)
}

func anyDear(entries []*Entry) bool {
	for _, e := range entries {
		if e != nil && !e.kept() {
			return true
		}
	}
	return false
}

// kept says that the decoded object lives as long as the entry.
func (e *Entry) kept() bool {
	have := e.selectable.Load()
	return have != nil && have.object != nil
}

func (c *Cache) decodeAll(ctx context.Context, entries []*Entry) error {
	if len(entries) == 0 {
		return nil
	}
	values := make([][]byte, len(entries))
	for i, e := range entries {
		plain, err := e.open()
		if err != nil {
			return err
		}
		values[i] = plain
	}
	objects, err := c.cfg.DecodeAll(ctx, values)
	if err != nil {
		return err
	}
	if len(objects) != len(entries) {
		return fmt.Errorf("decode %d entries of %q: there are %d objects", len(entries), c.cfg.Prefix, len(objects))
	}
	for i, e := range entries {
		if err := e.keep(objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// keep makes obj the entry's object, unless it has one.
func (e *Entry) keep(obj runtime.Object) error {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return fmt.Errorf("decode %q at revision %d: %w", e.cfg.Prefix+e.key, e.revision, err)
	}
	e.decoding.Lock()
	if have := e.object.get(); have != nil {
		obj = have
	} else {
		accessor.SetResourceVersion(strconv.FormatInt(e.revision, 10))
		e.object = weakly(obj)
	}
	e.decoding.Unlock()
	made := e.looked(obj)
	made.object = obj
	e.selectable.Store(made)
	return nil
}

// bequeath gives to, the same state under another revision, what is kept of e.
func (e *Entry) bequeath(to *Entry) {
	have := e.selectable.Load()
	if have == nil || have.object == nil {
		return
	}
	obj := have.object.DeepCopyObject()
	_ = to.keep(obj) // it has metadata: e has kept it
}

// together decodes what the watcher is going to look at or deliver of changes;
// false when that failed, which ends the watcher.
func (w *Watcher) together(changes []*change) bool {
	if w.cache.cfg.DecodeAll == nil || len(changes) == 0 {
		return true
	}
	var entries []*Entry
	for _, ch := range changes {
		entries = append(entries, w.inScope(ch.after))
		if ch.after == nil || w.opts.Match != nil {
			entries = append(entries, w.inScope(ch.before))
		}
	}
	return w.allTogether(entries)
}

// startTogether is together for the initial state.
func (w *Watcher) startTogether() bool {
	if w.cache.cfg.DecodeAll == nil {
		return true
	}
	var entries []*Entry
	w.start.Ascend(w.scope(), "", func(e *Entry) bool {
		entries = append(entries, e)
		return true
	})
	return w.allTogether(entries)
}

func (w *Watcher) inScope(e *Entry) *Entry {
	if e == nil || !strings.HasPrefix(e.key, w.scope()) {
		return nil
	}
	return e
}

func (w *Watcher) allTogether(entries []*Entry) bool {
	ctx, cancel := w.context()
	defer cancel()
	if err := w.cache.Together(ctx, entries...); err != nil {
		return w.fail(err)
	}
	return true
}
