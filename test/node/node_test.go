package node_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

// intruder is the image of most pods here.
const intruder = "test.local/intruder:1"

// node is one node: its engine, and agents on it, one after the other.
type node struct {
	*testing.T
	*cluster
	// name is the node's, ns the namespace of its pods; dir holds its files.
	name, ns, dir string
	cgroup        string
	imageDir      string
	// host is the network namespace of the pods' bridge, "" for the test's: only one
	// node at a time may be in that.
	host    string
	runtime *container.Runtime
	images  *image.Store
	net     *network.Net
	engine  *engine.Engine
	// change, when set, alters the agent's configuration, and connect the network's.
	change  func(*agent.Config)
	connect func(*network.Config)
	// agent runs until stop.
	agent *agent.Agent
	stop  func()
}

// newNode starts a node of the test's name, beside those of other tests; change may
// be nil. The test can't reach its pods.
func newNode(t *testing.T, change func(*agent.Config)) *node {
	t.Helper()
	t.Parallel()
	return newNodeWith(t, func(n *node) {
		n.apart()
		n.change = change
	})
}

// newReachable is a node whose pods the test, and so the agent, can reach: one at a
// time.
func newReachable(t *testing.T, change func(*agent.Config)) *node {
	t.Helper()
	return newNodeWith(t, func(n *node) { n.change = change })
}

func newNodeWith(t *testing.T, prepare func(*node)) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root: namespaces, mounts and cgroups")
	}
	c, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ToLower(strings.NewReplacer("_", "-", "/", "-").Replace(t.Name()))
	name = strings.TrimPrefix(name, "test")
	n := &node{T: t, cluster: c, name: name, ns: name, dir: filepath.Join(home, name), cgroup: "/" + filepath.Base(home) + "/" + name}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n.imageDir = filepath.Join(n.dir, "images")
	if prepare != nil {
		prepare(n)
	}
	c.namespace(t, n.ns)
	n.open()
	n.must(n.addImage(intruder, program()))
	n.start()
	t.Cleanup(n.end)
	return n
}

// apart gives the node a network namespace of its own, so that it may be beside
// others. Its pods can't be reached from the test then.
func (n *node) apart() {
	n.Helper()
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
	n.must(m.err)
	n.Cleanup(func() { unix.Close(m.fd) })
	n.host = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.fd)
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func (n *node) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(n.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// open makes the engine and what is below it.
func (n *node) open() {
	n.Helper()
	var err error
	n.runtime, err = container.Open(container.Config{Root: filepath.Join(n.dir, "containers"), Run: filepath.Join(n.dir, "run"),
		Keeper: container.Sealed(func() ([]byte, error) { return built.keeper, nil }), Cgroup: n.cgroup, Log: n.log()})
	n.must(err)
	n.images, err = image.Open(image.Config{Root: n.imageDir, Log: n.log()})
	n.must(err)
	world := network.Config{State: filepath.Join(n.dir, "network"), NetNS: n.host, Forwarding: true, Log: n.log()}
	if n.connect != nil {
		n.connect(&world)
	}
	n.net, err = network.Open(world)
	n.must(err)
	n.must(n.net.SetPodCIDR(netip.MustParsePrefix("10.98.0.0/23")))
	n.engine, err = engine.New(engine.Config{Runtime: n.runtime, Images: n.images, Network: n.net, Root: filepath.Join(n.dir, "engine"),
		Run: filepath.Join(n.dir, "sandboxes"), Cgroup: n.cgroup + "/pods", Log: n.log()})
	n.must(err)
}

// start begins an agent.
func (n *node) start() {
	n.Helper()
	cfg := agent.Config{
		NodeName: n.name, NodeIPs: []string{nodeIP}, Transport: n.node(n.name), Engine: n.engine, Root: filepath.Join(n.dir, "pods"),
		LogRoot: filepath.Join(n.dir, "logs"), KubeletRoot: filepath.Join(n.dir, "k"), CgroupRoot: strings.TrimPrefix(n.cgroup, "/"), PodCIDR: "10.98.0.0/23",
		Kubelet: &settings.Kubelet{}, PreparePod: preparePod, Log: n.log(),
	}
	if n.change != nil {
		n.change(&cfg)
	}
	var err error
	n.agent, err = agent.New(cfg)
	n.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.agent.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.Errorf("agent: %v", err)
		}
	}
}

// preparePod makes of a static pod's manifest what the API server would.
func preparePod(pod *corev1.Pod) error {
	rules := core.Pod().Strategy
	rules.Default(pod)
	return rules.Validate(pod).ToAggregate()
}

// close lets go of everything, as a process does that is restarted; containers stay.
func (n *node) close() {
	n.Helper()
	n.stop()
	n.must(errors.Join(n.engine.Close(), n.runtime.Leave(), n.net.Close()))
}

// end removes everything and checks that nothing is left on the machine.
func (n *node) end() {
	n.stop()
	ctx := context.Background()
	err := errors.Join(n.engine.Purge(ctx), n.engine.Close(), n.runtime.Shutdown(ctx), n.net.Close())
	if err != nil {
		n.Error(err)
	}
	_ = client.Nodes.Delete(ctx, n.admin, "", n.name, metav1.DeleteOptions{})
	now := int64(0)
	pods, _, _ := client.Pods.List(ctx, n.admin, n.ns, metav1.ListOptions{})
	for _, p := range pods {
		_ = client.Pods.Delete(ctx, n.admin, n.ns, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.dir+"/") && !strings.Contains(line, "/pods/") && !strings.Contains(line, "/disk") {
			n.Errorf("a mount is left: %s", line)
		}
	}
	for _, g := range groups(home) {
		if strings.Contains(g, n.cgroup+"/") {
			procs, _ := os.ReadFile(filepath.Join(g, "cgroup.procs"))
			if len(procs) > 0 {
				n.Errorf("processes are left in %s: %s", g, procs)
			}
		}
	}
}

// file is one entry of an image's layer.
type file struct {
	tar.Header
	body []byte
}

// program is the layer that most images here are made of.
func program() []byte {
	return layer(file{Header: tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}},
		file{Header: tar.Header{Typeflag: tar.TypeReg, Name: "intruder", Mode: 0o755}, body: built.intruder})
}

func layer(files ...file) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		f.Size = int64(len(f.body))
		if err := errors.Join(w.WriteHeader(&f.Header), second(w.Write(f.body))); err != nil {
			panic(err) // a test's own mistake
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func second(_ int, err error) error { return err }

// addImage makes an image of layers, each an uncompressed tar.
func (n *node) addImage(ref string, tars ...[]byte) error {
	return n.addImageOf(ref, ocispec.ImageConfig{Entrypoint: []string{"/intruder"}, Cmd: []string{"wait"}}, tars...)
}

func (n *node) addImageOf(ref string, of ocispec.ImageConfig, tars ...[]byte) error {
	b, err := n.images.NewBuild()
	if err != nil {
		return err
	}
	defer b.Close()
	var layers []image.Layer
	for _, t := range tars {
		l, err := b.WriteLayer(bytes.NewReader(t))
		if err != nil {
			return err
		}
		layers = append(layers, l)
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: of}
	_, err = b.Commit(context.Background(), config, layers, image.Naming{Ref: ref})
	return err
}

// pod is one bound to the node, of one container that runs the intruder.
func (n *node) pod(name string, args ...string) *corev1.Pod {
	no, grace := false, int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.ns, Name: name},
		Spec: corev1.PodSpec{NodeName: n.name, AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &grace, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "c", Image: intruder, Args: args, ImagePullPolicy: corev1.PullIfNotPresent}}},
	}
}

// create makes a pod.
func (n *node) create(pod *corev1.Pod) *corev1.Pod {
	n.Helper()
	made, err := client.Pods.Create(n.Context(), n.admin, pod)
	n.must(err)
	return made
}

func (n *node) get(name string) *corev1.Pod {
	n.Helper()
	pod, err := client.Pods.Get(n.Context(), n.admin, n.ns, name)
	n.must(err)
	return pod
}

func (n *node) gone(name string) bool {
	_, err := client.Pods.Get(n.Context(), n.admin, n.ns, name)
	return apierrors.IsNotFound(err)
}

func (n *node) delete(name string) {
	n.Helper()
	n.must(client.Pods.Delete(n.Context(), n.admin, n.ns, name, metav1.DeleteOptions{}))
}

// phase waits until a pod is in it.
func (n *node) phase(name string, phase corev1.PodPhase) *corev1.Pod {
	n.Helper()
	var pod *corev1.Pod
	n.await(name, "is "+string(phase), func(p *corev1.Pod) bool { pod = p; return p.Status.Phase == phase })
	return pod
}

// await waits for something about a pod, and shows it when it never comes.
func (n *node) await(name, what string, done func(*corev1.Pod) bool) {
	n.Helper()
	var last *corev1.Pod
	found := false
	defer func() {
		if !found && last != nil {
			n.Logf("pod %s: %v\n%s", name, last.Status.ContainerStatuses, n.events(name))
		}
	}()
	until(n, "pod "+name+" "+what, func() bool {
		last = n.get(name)
		found = done(last)
		return found
	})
}

// ready waits until all containers of a pod are.
func (n *node) ready(name string) *corev1.Pod {
	n.Helper()
	var pod *corev1.Pod
	n.await(name, "is ready", func(p *corev1.Pod) bool { pod = p; return isReady(p) })
	return pod
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// output is what a container has written so far, without the log's own fields.
func (n *node) output(pod *corev1.Pod, container string) string {
	n.Helper()
	paths, err := filepath.Glob(filepath.Join(n.dir, "logs", pod.Namespace+"_"+pod.Name+"_"+string(pod.UID), container, "*.log*"))
	n.must(err)
	var out strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) { // rotated since: its lines are in another, or gone
			continue
		}
		n.must(err)
		for line := range strings.Lines(string(data)) {
			if f := strings.SplitN(line, " ", 4); len(f) == 4 {
				out.WriteString(f[3])
			}
		}
	}
	return out.String()
}

// run runs a pod to its end and returns what it wrote.
func (n *node) run(pod *corev1.Pod) (string, *corev1.Pod) {
	n.Helper()
	n.create(pod)
	var ended *corev1.Pod
	n.await(pod.Name, "ends", func(p *corev1.Pod) bool {
		ended = p
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	return n.output(ended, pod.Spec.Containers[0].Name), ended
}

// events are the messages of a pod's events, with their reasons.
func (n *node) events(name string) string {
	n.Helper()
	list, _, err := client.Events.List(n.Context(), n.admin, n.ns, metav1.ListOptions{})
	n.must(err)
	var b strings.Builder
	for _, e := range list {
		if e.InvolvedObject.Name == name {
			fmt.Fprintf(&b, "%s: %s\n", e.Reason, e.Message)
		}
	}
	return b.String()
}
