package plugin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver is a real plugin: a gRPC server at a socket.
type driver struct {
	registerapi.UnimplementedRegistrationServer

	info *registerapi.PluginInfo
	told chan *registerapi.RegistrationStatus
}

func (d *driver) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return d.info, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	d.told <- s
	return &registerapi.RegistrationStatusResponse{}, nil
}

func serve(t *testing.T, socket string, info *registerapi.PluginInfo) (*driver, *grpc.Server) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d, s := &driver{info: info, told: make(chan *registerapi.RegistrationStatus, 8)}, grpc.NewServer()
	registerapi.RegisterRegistrationServer(s, d)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return d, s
}

// book is a handler that writes down what it hears.
type book struct {
	lines  chan string
	refuse error
}

func (b *book) Register(_ context.Context, i Info) error {
	b.lines <- "come " + i.Name + " " + filepath.Base(i.Endpoint)
	return b.refuse
}

func (b *book) Deregister(i Info) { b.lines <- "gone " + i.Name }

func TestPluginsComeAndGo(t *testing.T) {
	dir, err := os.MkdirTemp("", "plug")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	early, _ := serve(t, filepath.Join(dir, "early.sock"), &registerapi.PluginInfo{Type: "DRAPlugin", Name: "early", Endpoint: "/run/early.sock"})
	good, bad := &book{lines: make(chan string, 8)}, &book{lines: make(chan string, 8), refuse: errors.New("too old")}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Dir: dir, Handlers: map[string]Handler{"DRAPlugin": good, "CSIPlugin": bad}, Log: slog.New(slog.DiscardHandler)})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	hear := func(lines chan string, want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("never heard %q", want)
		}
	}
	told := func(d *driver, registered bool, text string) {
		t.Helper()
		select {
		case s := <-d.told:
			if s.GetPluginRegistered() != registered || s.GetError() != text {
				t.Errorf("the plugin was told %v", s)
			}
		case <-time.After(time.Minute):
			t.Fatal("the plugin was told nothing")
		}
	}
	hear(good.lines, "come early early.sock")
	told(early, true, "")
	late, server := serve(t, filepath.Join(dir, "below", "late.sock"), &registerapi.PluginInfo{Type: "DRAPlugin", Name: "late"})
	hear(good.lines, "come late late.sock")
	told(late, true, "")
	old, _ := serve(t, filepath.Join(dir, "old.sock"), &registerapi.PluginInfo{Type: "CSIPlugin", Name: "old"})
	hear(bad.lines, "come old old.sock")
	told(old, false, "RegisterPlugin error -- plugin validation failed with err: too old")
	odd, _ := serve(t, filepath.Join(dir, "odd.sock"), &registerapi.PluginInfo{Type: "Toaster", Name: "odd"})
	told(odd, false, "RegisterPlugin error -- plugin validation failed with err: no handler registered for plugin type: Toaster at socket "+filepath.Join(dir, "odd.sock"))
	server.Stop() // takes its socket with it
	hear(good.lines, "gone late")
}
