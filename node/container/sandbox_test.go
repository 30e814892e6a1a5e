package container

import (
	"io"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (b *box) sandbox(cfg SandboxConfig) *Sandbox {
	b.t.Helper()
	s, err := b.CreateSandbox(b.context(), cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// in puts a container into a sandbox, with its shared memory.
func (b *box) in(sb *Sandbox, id string, verbs ...string) CreateConfig {
	spec := probeSpec(verbs...)
	for i := range spec.Mounts {
		if spec.Mounts[i].Destination == "/dev/shm" {
			spec.Mounts[i] = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: sb.Shm(), Options: []string{"rbind"}}
		}
	}
	cfg := b.config(id, spec)
	cfg.SandboxID = sb.Config.ID
	return cfg
}

func TestSandboxIsShared(t *testing.T) {
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", Hostname: "pod-name", Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}})
	_, out := b.run(b.in(sb, "first", "host", ";", "write", "/dev/shm/note", ";", "read", "/proc/sys/net/ipv4/ip_forward"))
	if want := "stdout F host pod-name pid 1\nstdout F write /dev/shm/note ok\nstdout F /proc/sys/net/ipv4/ip_forward ok 1\n"; out != want {
		t.Errorf("first saw\n%swant\n%s", out, want)
	}
	b.start(b.in(sb, "server", "listen", "127.0.0.1:8080"))
	_, out = b.run(b.in(sb, "second", "ls", "/dev/shm"))
	if want := "stdout F ls /dev/shm ok note\n"; out != want {
		t.Errorf("second saw %q, want %q", out, want)
	}
	var text string
	for ctx := b.context(); ; { // until the server listens
		c, err := b.DialIn(ctx, "pod", "localhost:8080")
		if err != nil {
			if ctx.Err() != nil || !strings.Contains(err.Error(), "refused") {
				t.Fatal(err)
			}
			continue
		}
		raw, err := io.ReadAll(c)
		c.Close()
		if text = string(raw); err != nil {
			t.Fatal(err)
		}
		break
	}
	if text != "hello from inside\n" {
		t.Errorf("dialled in and read %q", text)
	}
	if err := b.RemoveSandbox(b.context(), "pod"); err != nil {
		t.Error(err)
	}
	if err := b.RemoveSandbox(b.context(), "pod"); err != nil {
		t.Errorf("a second RemoveSandbox: %v", err)
	}
	if _, err := os.Stat(sb.NetNS()); !os.IsNotExist(err) {
		t.Errorf("network namespace is left: %v", err)
	}
}

func TestSandboxRefusesHostSysctls(t *testing.T) {
	b := newBox(t)
	for _, name := range []string{"vm.swappiness", "net/../vm/swappiness", "kernel.panic"} {
		if _, err := b.CreateSandbox(b.context(), SandboxConfig{ID: "bad", Sysctls: map[string]string{name: "1"}}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if _, err := b.CreateSandbox(b.context(), SandboxConfig{ID: "bad", HostNetwork: true, Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}); err == nil {
		t.Error("a host network's sysctl was accepted")
	}
}

// With a shared pid namespace the containers see each other, orphans are reaped
// by the sandbox's pid 1, and what a container leaves behind is killed.
func TestSharedPIDNamespace(t *testing.T) {
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", SharePID: true})
	_, out := b.run(b.in(sb, "first", "host", ";", "orphan", ";", "read", "/proc/1/comm"))
	if !strings.HasPrefix(out, "stdout F host ") || strings.Contains(out, "pid 1\n") || !strings.HasSuffix(out, "/proc/1/comm ok sampan-pause\n") {
		t.Errorf("saw %q", out)
	}
	c, err := b.find("first")
	if err != nil {
		t.Fatal(err)
	}
	ctx := b.context()
	for ctx.Err() == nil { // killed, but perhaps not gone yet
		pids, err := c.group.Pids()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			return
		}
	}
	t.Error("an orphan outlives its container")
}

func TestTargetPIDNamespace(t *testing.T) {
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod"})
	b.start(b.in(sb, "target", "sleep"))
	s, err := b.Status("target")
	if err != nil {
		t.Fatal(err)
	}
	cfg := b.in(sb, "debug", "read", "/proc/1/cmdline")
	for i := range cfg.Spec.Linux.Namespaces {
		if n := &cfg.Spec.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + itoa(s.PID) + "/ns/pid"
		}
	}
	if _, out := b.run(cfg); !strings.Contains(out, "/bin/probe\x00sleep") {
		t.Errorf("saw %q", out)
	}
}

func TestHostNamespaces(t *testing.T) {
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "pod", HostNetwork: true, HostIPC: true, HostPID: true})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	s, out := b.run(b.in(sb, "c1", "host", ";", "orphan"))
	if s.ExitCode != 0 || !strings.HasPrefix(out, "stdout F host "+host+" pid ") || strings.Contains(out, "pid 1\n") {
		t.Errorf("%+v saw %q", s, out)
	}
}
