package container

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The programs that the tests run, built once.
var built struct {
	keeper []byte
	rootfs string // a directory with /bin/probe in it
}

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "build test programs:", err)
		code = 1
	}
	os.Exit(code)
}

func build(m *testing.M) (int, error) {
	if os.Getuid() != 0 {
		return m.Run(), nil // every test skips
	}
	dir, err := os.MkdirTemp("", "sampan-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	built.rootfs = filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "tmp", "proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(built.rootfs, d), 0o755); err != nil {
			return 1, err
		}
	}
	if err := os.WriteFile(filepath.Join(built.rootfs, "etc/passwd"), []byte("root:x:0:0::/root:\nme:x:1000:1000::/home/me:\n"), 0o644); err != nil {
		return 1, err
	}
	keeper := filepath.Join(dir, "keeper")
	for out, pkg := range map[string]string{
		keeper:                                   "../../cmd/keeper",
		filepath.Join(built.rootfs, "bin/probe"): "./testdata/probe",
	} {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := c.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("%s: %w: %s", pkg, err, b)
		}
	}
	if built.keeper, err = os.ReadFile(keeper); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// logTo writes the runtime's log to the test's.
type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// patience bounds whatever is waited for: it ends what hangs, and is no measure.
const patience = time.Minute

// home is one place where Runtimes live, one after the other.
type home struct {
	t   testing.TB
	cfg Config
}

func newHome(t testing.TB) *home {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces, mounts and cgroups")
	}
	dir, err := os.MkdirTemp("", "sampan-test-")
	if err != nil {
		t.Fatal(err)
	}
	h := &home{t: t, cfg: Config{
		Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Keeper: Sealed(func() ([]byte, error) { return built.keeper, nil }),
		Cgroup: fmt.Sprintf("/sampan-test-%d-%s", os.Getpid(), filepath.Base(dir)[len("sampan-test-"):]),
		Log:    slog.New(slog.DiscardHandler),
	}}
	if testing.Verbose() {
		h.cfg.Log = slog.New(slog.NewTextHandler(logTo{t}, nil))
	}
	t.Cleanup(func() {
		h.clean()
		os.RemoveAll(dir)
	})
	return h
}

func (h *home) open() *Runtime {
	h.t.Helper()
	r, err := Open(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// clean removes everything through a Runtime of its own, and checks that nothing
// is left: this runs after every test.
func (h *home) clean() {
	r, err := Open(h.cfg)
	if err != nil {
		h.t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range r.List() {
		if err := r.Remove(ctx, s.ID); err != nil {
			h.t.Error(err)
		}
	}
	r.mu.Lock()
	var ids []string
	for id := range r.sandboxes {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	for _, id := range ids {
		if err := r.RemoveSandbox(ctx, id); err != nil {
			h.t.Error(err)
		}
	}
	if log, err := os.ReadFile(filepath.Join(h.cfg.Run, "keeper.log")); err == nil && len(log) > 0 {
		h.t.Logf("the keeper's log:\n%s", log)
	}
	if err := r.Shutdown(ctx); err != nil {
		h.t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(filepath.Dir(h.cfg.Run))) {
		h.t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + h.cfg.Cgroup); len(left) > 0 {
		h.t.Errorf("cgroups are left: %v", left)
	}
	if left, _ := os.ReadDir(h.cfg.Run); len(left) > 0 {
		h.t.Errorf("run directory is not empty: %v", left)
	}
}

// box is a Runtime in a home of its own.
type box struct {
	*Runtime
	t   testing.TB
	dir string
}

func newBox(t testing.TB) *box {
	h := newHome(t)
	r := h.open()
	t.Cleanup(func() { r.Close() })
	return &box{r, t, filepath.Dir(h.cfg.Run)}
}

// spec is a container that runs probe with verbs.
func probeSpec(verbs ...string) *specs.Spec {
	s := DefaultSpec()
	s.Process.Args = append([]string{"/bin/probe"}, verbs...)
	s.Hostname = "inside"
	return s
}

// config gives a container an overlay over the test's rootfs.
func (b *box) config(id string, spec *specs.Spec) CreateConfig {
	b.t.Helper()
	cfg := CreateConfig{ID: id, Spec: spec, LogPath: filepath.Join(b.dir, id+".log")}
	cfg.Rootfs = Rootfs{Lower: []string{built.rootfs}}
	for name, field := range map[string]*string{"upper": &cfg.Rootfs.Upper, "work": &cfg.Rootfs.Work} {
		*field = filepath.Join(b.dir, "layers", id, name)
		if err := os.MkdirAll(*field, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	return cfg
}

func (b *box) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

// start creates and starts.
func (b *box) start(cfg CreateConfig) {
	b.t.Helper()
	if err := b.Create(b.context(), cfg); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Start(b.context(), cfg.ID); err != nil {
		b.t.Fatal(err)
	}
}

// run starts a container, waits for its end and returns what it has printed,
// without timestamps.
func (b *box) run(cfg CreateConfig) (Status, string) {
	b.t.Helper()
	b.start(cfg)
	s, err := b.Wait(b.context(), cfg.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return s, b.log(cfg.LogPath)
}

// log is a CRI log file without its timestamps.
func (b *box) log(path string) string {
	b.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		at, rest, _ := strings.Cut(line, " ")
		if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
			b.t.Errorf("log line %q: %v", line, err)
		}
		out.WriteString(rest)
	}
	return out.String()
}
