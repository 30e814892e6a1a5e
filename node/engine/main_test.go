package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri/critest"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

const examImage = "exam.test/probe:1"

// built are the programs that the tests run, compiled once.
var built struct {
	keeper []byte
	layer  []byte
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		var err error
		if built.keeper, err = os.ReadFile(filepath.Join(dir, "keeper")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	} else if os.Getuid() == 0 {
		if err := build(); err != nil {
			fmt.Fprintln(os.Stderr, "build test programs:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func build() error {
	dir, err := os.MkdirTemp("", "sampan-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keeper := filepath.Join(dir, "keeper")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", keeper, "../../cmd/keeper")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("keeper: %w: %s", err, b)
	}
	if built.keeper, err = os.ReadFile(keeper); err != nil {
		return err
	}
	layer, err := critest.Layer()
	if err != nil {
		return err
	}
	built.layer, err = io.ReadAll(layer)
	return err
}

// node is a place where engines live, one after the other, with everything
// below them. Its pod network is in a namespace of its own.
type node struct {
	t       testing.TB
	dir     string
	cgroup  string
	host    string // path of the network namespace
	runtime *container.Runtime
	images  *image.Store
	net     *network.Net
	engine  *Engine
}

func newNode(t testing.TB) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	dir, err := os.MkdirTemp("", "sampan-test-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, cgroup: "/" + filepath.Base(dir), host: newNetNS(t)}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n.open()
	n.must(n.addImage(examImage, built.layer))
	t.Cleanup(n.purge)
	return n
}

func newNetNS(t testing.TB) string {
	t.Helper()
	type made struct {
		fd  int
		err error
	}
	done := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- made{-1, err}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		done <- made{fd, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { unix.Close(m.fd) })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.fd)
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) open() {
	n.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(logTo{n.t}, nil))
	}
	var err error
	n.runtime, err = container.Open(container.Config{Root: filepath.Join(n.dir, "containers"), Run: filepath.Join(n.dir, "run"),
		Keeper: container.Sealed(func() ([]byte, error) { return built.keeper, nil }), Cgroup: n.cgroup, Log: log})
	n.must(err)
	n.images, err = image.Open(image.Config{Root: filepath.Join(n.dir, "images"), Log: log})
	n.must(err)
	n.net, err = network.Open(network.Config{State: filepath.Join(n.dir, "network"), NetNS: n.host, Forwarding: true, Log: log})
	n.must(err)
	n.must(n.net.SetPodCIDR(netip.MustParsePrefix("10.99.0.0/24")))
	n.engine, err = New(Config{Runtime: n.runtime, Images: n.images, Network: n.net, Root: filepath.Join(n.dir, "engine"),
		Run: filepath.Join(n.dir, "sandboxes"), Cgroup: n.cgroup + "/pods", Log: log,
		CDIDirs: []string{filepath.Join(n.dir, "cdi")}, Runtimes: installed()})
	n.must(err)
}

// close lets go of everything, as an agent that is restarted does.
func (n *node) close() {
	n.t.Helper()
	n.must(errors.Join(n.engine.Close(), n.runtime.Close(), n.net.Close()))
}

// purge removes everything and checks that nothing is left.
func (n *node) purge() {
	n.t.Helper()
	ctx := context.Background()
	err := errors.Join(n.engine.Purge(ctx), n.engine.Close(), n.runtime.Shutdown(ctx), n.net.Close())
	if err != nil {
		n.t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	n.must(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.dir) {
			n.t.Errorf("a mount is left: %s", line)
		}
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup)
	n.must(err)
	for _, g := range append(groups, "/sys/fs/cgroup"+n.cgroup) {
		if _, err := os.Stat(g); err == nil {
			n.t.Errorf("a cgroup is left: %s", g)
		}
	}
}

// addImage makes an image of layers, each an uncompressed tar.
func (n *node) addImage(ref string, tars ...[]byte) error {
	b, err := n.images.NewBuild()
	if err != nil {
		return err
	}
	defer b.Close()
	var layers []image.Layer
	for _, tar := range tars {
		layer, err := b.WriteLayer(bytes.NewReader(tar))
		if err != nil {
			return err
		}
		layers = append(layers, layer)
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config: ocispec.ImageConfig{Entrypoint: []string{"/probe"}, Cmd: []string{"echo", "from the image"}, Env: []string{"FROM=image"}, WorkingDir: "/work"}}
	_, err = b.Commit(context.Background(), config, layers, image.Naming{Ref: ref})
	return err
}

// logTo writes the engine's log to the test's.
type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}
