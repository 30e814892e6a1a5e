package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/cri/critest"
	"github.com/sampan-dev/sampan/node/image"
)

// inOwnWorld marks the test's second process, in namespaces that end with it.
const inOwnWorld = "SAMPAN_TEST_OWN_WORLD"

const pauseImage = "exam.test/pause:1"

// known are the parts that Debian's containerd (1.6) does not pass, and why.
var known = map[string]string{
	"events":           "GetContainerEvents came with 1.7",
	"exec output":      "an answer with 16 MiB of output is larger than what its server sends",
	"images":           "a list that is filtered by an image has all images",
	"container mounts": "what is not there is made, where the contract says that it should be an error; image volumes came with 2.1",
	"mount sentences":  "image volumes came with 2.1, and what asks for one gets the host's directory",
	"container stop":   "stop signals of containers came with 2.2",
	"streams":          "what a terminal shows is lost now and then when its input has ended",
	"parts of images":  "image volumes came with 2.1, and a part of one with 2.2",
	"device sentences": "a CDI device is passed over without an error",

	"event statuses":  "GetContainerEvents came with 1.7",
	"error output":    "an answer with 16 MiB of output is larger than what its server sends",
	"image tokens":    "a registry token is passed over",
	"image refusals":  "wrong content stays half fetched and makes the next pull fail, too",
	"capability sets": "ambient capabilities are passed over",
	"numbers":         "what is told of a pod's network has no time",

	"statuses by the letter":   "a short-lived container may have ended before it was started",
	"privileged by the letter": "sysfs stays read-only unless the sandbox is privileged, too",
}

// foreignTries is how often containerd may take the exam: on a busy machine it is late
// with what it tells, an OOM kill say, and what fails once in three is not the contract's.
const foreignTries = 3

// The exam is one of the contract and not of our engine: containerd, where there is
// one, takes it too. It runs in network and mount namespaces of the test's own, with
// images that our own store has made.
func TestContainerd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	plugins := "/usr/lib/cni"
	for _, need := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	if _, err := os.Stat(filepath.Join(plugins, "bridge")); err != nil {
		t.Skip("CNI plugins are not installed")
	}
	if os.Getenv(inOwnWorld) == "" {
		var out []byte
		var err error
		for range foreignTries {
			c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestContainerd$", "-test.v")
			c.Env = append(os.Environ(), inOwnWorld+"=1")
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			if out, err = c.CombinedOutput(); err == nil {
				return
			}
		}
		t.Errorf("%v\n%s", err, out)
		return
	}
	foreignExam(t, plugins)
}

func foreignExam(t *testing.T, plugins string) {
	n := &node{t: t, dir: t.TempDir()}
	n.must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("bring up lo: %v: %s", err, out)
	}
	socket := n.containerd(plugins)
	remote := dialSoon(t, socket)
	defer remote.Close()
	n.give(socket)
	group := fmt.Sprintf("/sampan-test-containerd-%d", os.Getpid())
	t.Cleanup(func() { leaveNoGroup(t, group) })
	critest.Run(t, critest.Subject{Engine: remote, Socket: socket, Image: examImage, Cgroup: group, Known: known})
}

// containerd starts one with everything of its own below the node's directory.
func (n *node) containerd(plugins string) (socket string) {
	socket = filepath.Join(n.dir, "c.sock")
	conf := filepath.Join(n.dir, "net")
	n.must(os.Mkdir(conf, 0o755))
	n.must(os.WriteFile(filepath.Join(conf, "1.conflist"), []byte(`{"cniVersion":"0.4.0","name":"exam","plugins":[
		{"type":"bridge","bridge":"exam0","isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":"`+n.dir+`/ipam","ranges":[[{"subnet":"10.98.0.0/24"}]]}},
		{"type":"portmap","capabilities":{"portMappings":true}}]}`), 0o644))
	config := filepath.Join(n.dir, "config.toml")
	n.must(os.WriteFile(config, []byte(fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[2]s"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s"
  enable_cdi = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[4]s"
    conf_dir = "%[5]s"
`, n.dir, socket, pauseImage, plugins, conf)), 0o644))
	log, err := os.Create(filepath.Join(n.dir, "log"))
	n.must(err)
	c := exec.Command("containerd", "--config", config)
	c.Stdout, c.Stderr, c.SysProcAttr = log, log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // a death signal comes when the thread that forked ends
		started <- c.Start()
		_ = c.Wait() // it is told to end
	}()
	n.must(<-started)
	n.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		log.Close()
		if n.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			n.t.Logf("containerd says:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return socket
}

func dialSoon(t *testing.T, socket string) *cri.Remote {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		remote, err := cri.Dial(ctx, "unix://"+socket)
		if err == nil {
			return remote
		}
		select {
		case <-ctx.Done():
			t.Fatal(errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// give makes the exam's images in a store of ours, and imports them.
func (n *node) give(socket string) {
	n.t.Helper()
	var err error
	n.images, err = image.Open(image.Config{Root: filepath.Join(n.dir, "images")})
	n.must(err)
	n.must(n.addImage(examImage, built.layer))
	b, err := n.images.NewBuild()
	n.must(err)
	defer b.Close()
	layer, err := b.WriteLayer(strings.NewReader(string(built.layer)))
	n.must(err)
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: ocispec.ImageConfig{Entrypoint: []string{"/probe", "wait"}}}
	_, err = b.Commit(n.t.Context(), config, []image.Layer{layer}, image.Naming{Ref: pauseImage})
	n.must(err)
	file, err := os.Create(filepath.Join(n.dir, "images.tar"))
	n.must(err)
	n.must(errors.Join(n.images.Save(file, examImage, pauseImage), file.Close()))
	out, err := exec.CommandContext(n.t.Context(), "ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", file.Name()).CombinedOutput()
	if err != nil {
		n.t.Fatalf("import images: %v: %s", err, out)
	}
}

// leaveNoGroup removes what containerd leaves of its containers' parent group, with the
// groups below it, which are empty by then.
func leaveNoGroup(t *testing.T, group string) {
	found, err := filepath.Glob("/sys/fs/cgroup/*" + group)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(found, "/sys/fs/cgroup"+group) {
		var below []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				below = append(below, path)
			}
			return nil // what is gone is no matter
		})
		for _, d := range slices.Backward(below) {
			_ = os.Remove(d) // what is not empty stays, and is seen by who looks
		}
	}
}
