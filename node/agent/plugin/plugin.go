// Package plugin finds the plugins that register by a socket in a directory
// (k8s.io/kubelet/pkg/apis/pluginregistration/v1): it asks each socket who it is,
// hands it to the handler of its type, and tells it whether it was taken. A
// plugin whose socket goes is given up; one whose socket is made anew is taken
// anew.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/sampan-dev/sampan/node/agent/inotify"
)

// Limits of looking for plugins.
const (
	callTimeout = 10 * time.Second
	settle      = 50 * time.Millisecond
	retryAfter  = 5 * time.Second
	rescanEvery = time.Minute
	maxSockets  = 1024
	maxDepth    = 8
)

// Info is who a plugin says it is.
type Info struct {
	// Type is CSIPlugin, DevicePlugin or DRAPlugin.
	Type, Name string
	// Endpoint is the socket to talk to, Versions what is spoken there.
	Endpoint string
	Versions []string
}

// Handler takes the plugins of one type. Calls for one plugin come one after the
// other, for several side by side never.
type Handler interface {
	// Register takes a plugin or says why not; it must not block for long.
	Register(ctx context.Context, info Info) error
	// Deregister gives a plugin up that Register took.
	Deregister(info Info)
}

// Config is what Run needs.
type Config struct {
	// Dir is searched for sockets, with everything below it.
	Dir string
	// Handlers are by type.
	Handlers map[string]Handler
	// Sockets, if it isn't nil, is told which there are.
	Sockets *Sockets
	Log     *slog.Logger
}

// Sockets are those of plugins that have been found. It may be used from any
// goroutine.
type Sockets struct {
	mu   sync.Mutex
	list map[string]bool
}

// List says of each socket whether its plugin was taken. The map is the caller's.
func (s *Sockets) List() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.list)
}

func (s *Sockets) set(known map[string]found) {
	if s == nil {
		return
	}
	list := make(map[string]bool, len(known))
	for path, f := range known {
		list[path] = f.taken != nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
}

// watch remembers the sockets that were found.
type watch struct {
	Config
	known map[string]found
	dirs  map[string]bool
}

// found is a socket as it was when it was asked; taken is nil for one that isn't
// ours to have.
type found struct {
	stamp time.Time
	taken *Info
	retry bool
}

// Run takes and gives plugins up until ctx ends. It fails when it can't begin.
func Run(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("plugin registration: %w", err)
	}
	events, err := inotify.Open()
	if err != nil {
		return fmt.Errorf("plugin registration: %w", err)
	}
	defer events.Close()
	w := &watch{Config: cfg, known: map[string]found{}, dirs: map[string]bool{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-events.Events():
			if !open {
				return errors.New("plugin registration: the watch of the directory ended")
			}
			timer.Reset(settle)
		case <-timer.C:
			timer.Reset(w.scan(ctx, events))
		}
	}
}

// scan looks at all sockets and says when to look again at the latest.
func (w *watch) scan(ctx context.Context, events *inotify.Watcher) time.Duration {
	sockets := w.sockets(events)
	for path, f := range w.known {
		if _, there := sockets[path]; there {
			continue
		}
		delete(w.known, path)
		if f.taken != nil {
			w.Log.Info("a plugin has gone", "type", f.taken.Type, "name", f.taken.Name)
			w.Handlers[f.taken.Type].Deregister(*f.taken)
		}
	}
	again := rescanEvery
	for path, stamp := range sockets {
		have, known := w.known[path]
		if known && have.stamp.Equal(stamp) && !have.retry {
			continue
		}
		if known && have.taken != nil {
			w.Handlers[have.taken.Type].Deregister(*have.taken)
		}
		next := found{stamp: stamp}
		next.taken, next.retry = w.ask(ctx, path, have)
		if next.retry {
			again = retryAfter
		}
		w.known[path] = next
	}
	w.Sockets.set(w.known)
	return again
}

// sockets are those in the directory, with the times of their making.
func (w *watch) sockets(events *inotify.Watcher) map[string]time.Time {
	list := map[string]time.Time{}
	seen := map[string]bool{}
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it may be gone already
		}
		if path != w.Dir && strings.HasPrefix(d.Name(), ".") {
			return skip(d)
		}
		if d.IsDir() {
			if strings.Count(strings.TrimPrefix(path, w.Dir), "/") > maxDepth {
				return fs.SkipDir
			}
			seen[path] = true
			if !w.dirs[path] {
				_, err := events.Add(path, inotify.Create|inotify.MovedTo|inotify.MovedFrom|inotify.Delete)
				seen[path] = err == nil
			}
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode()&fs.ModeSocket != 0 && len(list) < maxSockets {
			list[path] = info.ModTime()
		}
		return nil
	})
	if err != nil {
		w.Log.Warn("can't look for plugins", "dir", w.Dir, "err", err)
	}
	w.dirs = seen
	return list
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// ask finds out who listens at a socket and hands it over. Nobody may listen
// yet, or the handler may not be able to yet: then it is worth another try.
func (w *watch) ask(ctx context.Context, path string, before found) (taken *Info, retry bool) {
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Log.Warn("can't talk to a plugin", "socket", path, "err", err)
		return nil, false
	}
	defer func() { _ = conn.Close() }() // nothing was left to send
	client := registerapi.NewRegistrationClient(conn)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := client.GetInfo(ctx, &registerapi.InfoRequest{})
	if err != nil {
		if !before.retry {
			w.Log.Warn("a plugin does not answer", "socket", path, "err", err)
		}
		return nil, true
	}
	info := Info{Type: got.GetType(), Name: got.GetName(), Endpoint: got.GetEndpoint(), Versions: got.GetSupportedVersions()}
	if info.Endpoint == "" {
		info.Endpoint = path
	}
	err = w.hand(ctx, info)
	status := &registerapi.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = fmt.Sprintf("RegisterPlugin error -- plugin validation failed with err: %v", err)
		w.Log.Error("a plugin was not taken", "socket", path, "type", info.Type, "name", info.Name, "err", err)
	}
	if _, notify := client.NotifyRegistrationStatus(ctx, status); notify != nil {
		w.Log.Warn("a plugin could not be told of its registration", "socket", path, "err", notify)
		if err == nil {
			w.Handlers[info.Type].Deregister(info)
		}
		return nil, true
	}
	if err != nil {
		return nil, false
	}
	w.Log.Info("a plugin has come", "type", info.Type, "name", info.Name, "endpoint", info.Endpoint)
	return &info, false
}

func (w *watch) hand(ctx context.Context, info Info) error {
	handler := w.Handlers[info.Type]
	if handler == nil {
		return fmt.Errorf("no handler registered for plugin type: %s at socket %s", info.Type, info.Endpoint)
	}
	if info.Name == "" {
		return errors.New("the plugin has no name")
	}
	return handler.Register(ctx, info)
}
