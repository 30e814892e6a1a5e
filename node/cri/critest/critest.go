// Package critest is the exam of a container engine: whatever implements
// cri.Engine runs the same suite, in-process and over a socket. It makes real
// containers and needs root.
package critest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// callTime bounds each call of the exam: it ends what hangs, and is no measure.
const callTime = time.Minute

// Subject is what is examined.
type Subject struct {
	Engine cri.Engine
	// Image is a reference to an image that is made of Layer, with the
	// configuration: entry point /probe, arguments "echo from the image",
	// environment FROM=image, working directory /work, no user.
	Image string
	// Socket is where Engine is served, when it is.
	Socket string
	// Known are the parts that this engine is known not to pass, with the reason.
	Known map[string]string
	// Plain says that the engine is to name what it lacks for a checkpoint.
	Plain bool
	// Handler is the runtime handler to examine; empty is the engine's default.
	Handler string
	// Cgroup is the parent of the pods' cgroups; empty leaves it to the engine.
	Cgroup string
}

// Layer compiles the exam's only program and packs it, with a few accounts, as
// the one layer of the exam's image, an uncompressed tar.
func Layer() (io.Reader, error) {
	dir, err := os.MkdirTemp("", "sampan-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/sampan-dev/sampan/node/cri/critest/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the probe: %w: %s", err, b)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range []string{"etc", "work", "tmp", "data"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o1777}); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{"probe", 0o755, program},
		{"etc/passwd", 0o644, []byte("root:x:0:0::/root:\nweb:x:33:34::/srv/web:\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nwww:x:34:\nlogs:x:44:web\n")},
	} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content))}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	return &buf, w.Close()
}

// Run holds the exam. Parts are independent of each other, run side by side, and
// clean up after themselves, also when they fail.
func Run(t *testing.T, s Subject) {
	t.Run("exam", func(t *testing.T) { run(t, s) }) // ends with the last part
}

func run(t *testing.T, s Subject) {
	for _, part := range parts() {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			if why := s.Known[part.name]; why != "" {
				t.Skip(why)
			}
			part.take(&exam{T: t, Subject: s, e: s.Engine, logs: t.TempDir()})
		})
	}
}

// exam is one part of it under way.
type exam struct {
	*testing.T
	Subject
	e    cri.Engine
	logs string
}

// serial makes names unique, also against what an earlier run left behind.
var serial atomic.Uint32

func (x *exam) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	x.Cleanup(cancel)
	return ctx
}

func must[T any](v T, err error) func(*exam) T {
	return func(x *exam) T {
		x.Helper()
		if err != nil {
			x.Fatal(err)
		}
		return v
	}
}

func (x *exam) equal(what string, got, want any) {
	x.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		x.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// same compares lists whose order the contract leaves open.
func (x *exam) same(what string, got, want []string) {
	x.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	x.equal(what, got, want)
}

// gone is for calls about what was removed before: the contract wants no error about
// what is stopped, and says nothing about what is not there any more.
func (x *exam) gone(err error) {
	x.Helper()
	if err != nil && status.Code(err) != codes.NotFound {
		x.Errorf("about what is gone: %v", err)
	}
}

// features are what the engine says that it can do, those of the examined handler
// among it; the zero values when it says nothing.
func (x *exam) features() (*rt.RuntimeFeatures, *rt.RuntimeHandlerFeatures) {
	x.Helper()
	st := must(x.e.Status(x.ctx(), &rt.StatusRequest{}))(x)
	for _, h := range st.GetRuntimeHandlers() {
		if h.GetName() == x.Handler {
			return st.GetFeatures(), h.GetFeatures()
		}
	}
	return st.GetFeatures(), nil
}

// config is an ordinary pod's.
func (x *exam) config(change ...func(*rt.PodSandboxConfig)) *rt.PodSandboxConfig {
	n := serial.Add(1)
	c := &rt.PodSandboxConfig{
		Metadata:     &rt.PodSandboxMetadata{Name: fmt.Sprintf("pod-%d", n), Namespace: "exam", Uid: fmt.Sprintf("uid-%d-%d", os.Getpid(), n)},
		Hostname:     fmt.Sprintf("host-%d", n),
		LogDirectory: filepath.Join(x.logs, fmt.Sprint(n)),
		DnsConfig:    &rt.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"exam.test"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{"part": x.Name(), "n": fmt.Sprint(n)},
		Annotations:  map[string]string{"note": "untouched"},
		Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{
			NamespaceOptions: &rt.NamespaceOption{Pid: rt.NamespaceMode_CONTAINER}}},
	}
	if x.Cgroup != "" {
		c.Linux.CgroupParent = filepath.Join(x.Cgroup, c.Metadata.Uid)
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// sandbox runs a pod's sandbox and sees to its removal.
func (x *exam) sandbox(c *rt.PodSandboxConfig) string {
	x.Helper()
	id := must(x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: c, RuntimeHandler: x.Handler}))(x).PodSandboxId
	x.Cleanup(func() {
		if _, err := x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			x.Errorf("clean up: %v", err)
		}
	})
	return id
}

// pod is a sandbox with the configuration it was made from.
type pod struct {
	*exam
	id     string
	config *rt.PodSandboxConfig
}

func (x *exam) pod(change ...func(*rt.PodSandboxConfig)) *pod {
	x.Helper()
	c := x.config(change...)
	return &pod{exam: x, id: x.sandbox(c), config: c}
}

// container is the configuration of one that runs the probe.
func (p *pod) container(args ...string) *rt.ContainerConfig {
	n := serial.Add(1)
	name := fmt.Sprintf("c%d", n)
	return &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: name}, Image: &rt.ImageSpec{Image: p.Image}, Args: args,
		LogPath: name + ".log", Labels: map[string]string{"name": name}, Annotations: map[string]string{"note": "untouched"},
		Linux: &rt.LinuxContainerConfig{
			Resources: &rt.LinuxContainerResources{},
			SecurityContext: &rt.LinuxContainerSecurityContext{
				NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
				Seccomp:          &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault},
				MaskedPaths:      []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"}},
		},
	}
}

func (p *pod) create(c *rt.ContainerConfig) string {
	p.Helper()
	r := must(p.e.CreateContainer(p.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}))(p.exam)
	return r.ContainerId
}

func (p *pod) start(c *rt.ContainerConfig) string {
	p.Helper()
	id := p.create(c)
	must(p.e.StartContainer(p.ctx(), &rt.StartContainerRequest{ContainerId: id}))(p.exam)
	return id
}

func (x *exam) status(id string) *rt.ContainerStatus {
	x.Helper()
	return must(x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id}))(x).Status
}

// lookAgain is the pause between two looks at something that has no event.
const lookAgain = 20 * time.Millisecond

// until looks again and again, for as long as one call may take.
func (x *exam) until(what string, done func() bool) {
	x.Helper()
	ctx := x.ctx()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			x.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// ended waits for a container's end.
func (x *exam) ended(id string) *rt.ContainerStatus {
	x.Helper()
	var st *rt.ContainerStatus
	x.until("container "+id+" ends", func() bool {
		st = x.status(id)
		return st.State == rt.ContainerState_CONTAINER_EXITED
	})
	return st
}

// output runs a container to its end and returns what it wrote, without the last
// line break, and its status.
func (p *pod) output(c *rt.ContainerConfig) (string, *rt.ContainerStatus) {
	p.Helper()
	id := p.start(c)
	st := p.ended(id)
	return strings.TrimSuffix(p.log(st.LogPath), "\n"), st
}

// log is a log file's content without the CRI's timestamps and tags.
func (x *exam) log(path string) string {
	x.Helper()
	var out strings.Builder
	for line := range strings.Lines(string(must(os.ReadFile(path))(x))) {
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 {
			x.Fatalf("log line %q is not in the CRI's format", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, f[0]); err != nil {
			x.Errorf("log line %q: %v", line, err)
		}
		text := f[3]
		if f[2] == "P" {
			text = strings.TrimSuffix(text, "\n")
		}
		out.WriteString(text)
	}
	return out.String()
}

// says waits until a container's log holds a line.
func (x *exam) says(id, line string) {
	x.Helper()
	path := x.status(id).LogPath
	x.until(fmt.Sprintf("container %s says %q", id, line), func() bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), " "+line+"\n")
	})
}

// run executes the probe in a container.
func (x *exam) run(id string, args ...string) (string, int32) {
	x.Helper()
	r := must(x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: id, Cmd: append([]string{"/probe"}, args...), Timeout: 10}))(x)
	return strings.TrimSuffix(string(r.Stdout)+string(r.Stderr), "\n"), r.ExitCode
}
