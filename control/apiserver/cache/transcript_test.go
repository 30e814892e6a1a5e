package cache_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
)

var update = flag.Bool("update", false, "write what was seen into testdata")

// TestTranscripts plays testdata/*.txt: paragraphs of commands, then "----", then
// what was seen.
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got, shared string
			synctest.Test(t, func(t *testing.T) { got = play(t, string(want), false) })
			synctest.Test(t, func(t *testing.T) { shared = play(t, string(want), true) })
			if got != shared {
				t.Errorf("with a feed\n%s\nalone\n%s", shared, got)
			}
			if got == string(want) {
				return
			}
			if !*update {
				t.Fatalf("saw\n%s\nwant\n%s", got, want)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// stage is what a transcript plays on.
type stage struct {
	ctx      context.Context
	store    *memory.Store
	cache    *cache.Cache
	watchers map[string]*cache.Watcher
}

// play runs a transcript and returns it with what was seen this time: by a cache
// that watches alone, or by one that shares a feed.
func play(t *testing.T, script string, shares bool) string {
	s := memory.New(memory.Config{})
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	st := &stage{ctx: ctx, store: s, watchers: make(map[string]*cache.Watcher)}
	cfg := cache.Config{Store: s, Prefix: prefix, Decode: decode, Window: 8}
	if shares {
		cfg.Feed = fed(ctx, t, s)
	}
	st.cache = cache.New(cfg)
	ran := make(chan error, 1)
	go func() { ran <- st.cache.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		synctest.Wait()
	}()
	<-st.cache.Ready()

	var out strings.Builder
	var seen []string
	skip := false
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "----":
			fmt.Fprintln(&out, line)
			for _, one := range seen {
				fmt.Fprintln(&out, one)
			}
			seen, skip = nil, true
		case line == "":
			skip = false
			fmt.Fprintln(&out)
		case skip:
		default:
			fmt.Fprintln(&out, line)
			if !strings.HasPrefix(line, "#") {
				seen = append(seen, st.do(strings.Fields(line))...)
			}
		}
	}
	return out.String()
}

// do runs one command.
func (st *stage) do(words []string) []string {
	args := words[1:]
	switch words[0] {
	case "create":
		rev, err := st.store.Create(st.ctx, prefix+args[0], object(args[0], args[1:]...), 0)
		return told(rev, err)
	case "update":
		entry, _, err := st.store.Get(st.ctx, prefix+args[0])
		if err != nil {
			return told(0, err)
		}
		rev, err := st.store.Update(st.ctx, prefix+args[0], object(args[0], args[1:]...), entry.Revision, 0)
		return told(rev, err)
	case "delete":
		rev, err := st.store.Delete(st.ctx, prefix+args[0], 0)
		return told(rev, err)
	case "elsewhere":
		rev, err := st.store.Create(st.ctx, "/registry/elsewhere/"+args[0], nil, 0)
		return told(rev, err)
	case "compact":
		return told(0, st.store.Compact(st.ctx, number(args[0])))
	case "watch":
		return st.watch(args[0], args[1:])
	case "seen":
		return st.seen(st.watchers[args[0]])
	case "stop":
		st.watchers[args[0]].Stop()
		return nil
	case "pass":
		d, err := time.ParseDuration(args[0])
		time.Sleep(d)
		return told(0, err)
	case "at":
		snapshot, err := st.cache.At(st.ctx, number(args[0]))
		return listed(snapshot, err)
	case "fresh":
		snapshot, err := st.cache.Fresh(st.ctx)
		return listed(snapshot, err)
	case "wait":
		ctx, cancel := context.WithTimeout(st.ctx, time.Second)
		defer cancel()
		return told(0, st.cache.WaitFor(ctx, number(args[0])))
	}
	return []string{"unknown command " + words[0]}
}

func (st *stage) watch(name string, args []string) []string {
	synctest.Wait() // the cache has what the store has
	var opts cache.WatchOptions
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "after":
			opts.After = number(value)
		case "initial":
			opts.Initial = true
		case "namespace":
			opts.Namespace = value
		case "bookmarks":
			opts.Bookmarks = true
		case "app":
			opts.Match = func(e *cache.Entry) bool { return e.Labels()["app"] == value }
		}
	}
	w, err := st.cache.Watch(opts)
	st.watchers[name] = w
	return told(0, err)
}

// seen tells all that a watcher delivers now.
func (st *stage) seen(w *cache.Watcher) []string {
	var lines []string
	for {
		synctest.Wait()
		select {
		case batch, ok := <-w.C():
			if !ok {
				return append(lines, fmt.Sprintf("closed: %v", w.Err()))
			}
			for _, event := range batch {
				lines = append(lines, describe(event))
			}
		default:
			return append(lines, ".")
		}
	}
}

func describe(event cache.Event) string {
	line := fmt.Sprintf("%s @%d", event.Type, event.Revision)
	if event.Type == cache.InitialDone {
		line += " initial done"
	}
	if event.Entry != nil {
		line += " " + picture(event.Entry)
	}
	return line
}

// picture is an entry in one line; the version in it is the object's own.
func picture(e *cache.Entry) string {
	accessor, err := meta.Accessor(e.Object())
	if err != nil {
		return err.Error()
	}
	line := e.Key()
	for _, label := range slices.Sorted(maps.Keys(accessor.GetLabels())) {
		line += " " + label + "=" + accessor.GetLabels()[label]
	}
	return line + " version=" + accessor.GetResourceVersion()
}

func listed(s cache.Snapshot, err error) []string {
	if err != nil {
		return told(0, err)
	}
	lines := []string{fmt.Sprintf("%d at @%d", s.Len(), s.Revision())}
	s.Ascend("", "", func(e *cache.Entry) bool {
		lines = append(lines, "  "+picture(e))
		return true
	})
	return lines
}

func told(rev int64, err error) []string {
	for _, kind := range []error{store.ErrCompacted, store.ErrFuture, store.ErrNotFound} {
		if errors.Is(err, kind) {
			return []string{kind.Error()}
		}
	}
	switch {
	case err != nil:
		return []string{err.Error()}
	case rev != 0:
		return []string{fmt.Sprintf("@%d", rev)}
	}
	return []string{"ok"}
}

func number(word string) int64 {
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return -1
	}
	return n
}
