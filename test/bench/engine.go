package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

// engineIn names the directory of a process that is an engine of ours.
const engineIn = "SAMPAN_BENCH_ENGINE"

// keeperProgram is what make builds for sampan to carry.
var keeperProgram = cmp.Or(os.Getenv("SAMPAN_KEEPER"), "cmd/sampan/assets/keeper")

// plugins are Debian's CNI plugins, which containerd gives its pods a network with.
const plugins = "/usr/lib/cni"

// contestant is a container engine that is served on a socket.
type contestant struct {
	*cri.Remote
	name   string
	cgroup string
	logs   string
	// root is a directory that the command lines of its processes name.
	root string
	pid  int
	made int // pods so far, for their names
	end  func() error
}

// ourEngine starts an engine of ours, with its keeper, in a process of its own, on
// the images below dir. SAMPAN_BENCH_PROFILE is where it leaves its profiles.
func ourEngine(ctx context.Context, dir string) (*contestant, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), engineIn+"="+dir)
	return startContestant(ctx, cmd, contestant{name: "sampan", root: dir}, filepath.Join(dir, "cri.sock"))
}

// theirEngine starts containerd with everything of its own below dir/containerd, and
// gives it the images.
func theirEngine(ctx context.Context, dir, archive string) (*contestant, error) {
	own := filepath.Join(dir, "containerd")
	socket := filepath.Join(own, "c.sock")
	if err := os.MkdirAll(filepath.Join(own, "net"), 0o755); err != nil {
		return nil, err
	}
	list := `{"cniVersion":"0.4.0","name":"bench","plugins":[{"type":"bridge","bridge":"bench0","isGateway":true,"ipMasq":true,` +
		`"ipam":{"type":"host-local","dataDir":"` + own + `/ipam","ranges":[[{"subnet":"10.97.0.0/20"}]],"routes":[{"dst":"0.0.0.0/0"}]}},` +
		`{"type":"portmap","capabilities":{"portMappings":true}}]}`
	if err := os.WriteFile(filepath.Join(own, "net", "1.conflist"), []byte(list), 0o600); err != nil {
		return nil, err
	}
	config := filepath.Join(own, "config.toml")
	text := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[2]s"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[3]s"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[4]s"
    conf_dir = "%[1]s/net"
`, own, socket, pauseImage, plugins)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("containerd", "--config", config, "--log-level", "error")
	c, err := startContestant(ctx, cmd, contestant{name: "containerd", root: own}, socket)
	if err != nil {
		return nil, err
	}
	load := exec.CommandContext(ctx, "ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", archive)
	if out, err := load.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("import images: %w: %s", err, out), c.end())
	}
	return c, nil
}

// startContestant runs the engine's program in a mount namespace of its own and
// returns when it answers.
func startContestant(ctx context.Context, cmd *exec.Cmd, c contestant, socket string) (*contestant, error) {
	c.cgroup = fmt.Sprintf("/sampan-bench-%d/%s", os.Getpid(), c.name)
	c.logs = filepath.Join(c.root, "logs")
	log, err := os.Create(socket + ".log") // shims write into it as well
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	c.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c.end = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		err := <-ended
		var status *exec.ExitError
		if errors.As(err, &status) && status.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
			err = nil
		}
		removeCgroups(c.cgroup)
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var err error
		if c.Remote, err = cri.Dial(ctx, socket); err == nil {
			return &c, nil
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s ended: %w: %s", c.name, err, said)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err, c.end())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serveEngine is the process of ourEngine: it ends with SIGTERM.
func serveEngine(dir string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cgroup := fmt.Sprintf("/sampan-bench-%d/sampan", os.Getppid())
	runtime, err := container.Open(container.Config{Root: filepath.Join(dir, "containers"), Run: filepath.Join(dir, "run"), Cgroup: cgroup,
		Keeper: container.Sealed(func() ([]byte, error) { return os.ReadFile(keeperProgram) })})
	if err != nil {
		return err
	}
	images, err := image.Open(image.Config{Root: filepath.Join(dir, "images")})
	if err != nil {
		return err
	}
	pods, err := network.Open(network.Config{State: filepath.Join(dir, "network"), Forwarding: true, CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"}})
	if err != nil {
		return err
	}
	if err := pods.SetPodCIDR(netip.MustParsePrefix("10.96.0.0/20")); err != nil {
		return err
	}
	e, err := engine.New(engine.Config{Runtime: runtime, Images: images, Network: pods, Root: filepath.Join(dir, "engine"),
		Run: filepath.Join(dir, "sandboxes"), Cgroup: cgroup + "/pods"})
	if err != nil {
		return err
	}
	profile, err := profiled(os.Getenv("SAMPAN_BENCH_PROFILE"))
	if err != nil {
		return err
	}
	err = errors.Join(cri.Serve(ctx, filepath.Join(dir, "cri.sock"), newProber(e)), profile())
	end := context.WithoutCancel(ctx)
	return errors.Join(err, e.Purge(end), e.Close(), runtime.Shutdown(end), pods.Close())
}

// removeCgroups removes what is left of a cgroup, in all hierarchies: the directories of
// containers that were not removed one by one, and their parents; and what still runs
// there, which is nobody's any more. The last engine to end takes the parent of all along.
func removeCgroups(path string) {
	parents, _ := filepath.Glob("/sys/fs/cgroup/*" + filepath.Dir(path))
	for _, parent := range append(parents, "/sys/fs/cgroup"+filepath.Dir(path)) {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(parent, filepath.Base(path)), func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, dir)
			}
			return nil // one that is gone meanwhile
		})
		for _, dir := range slices.Backward(dirs) {
			removeCgroup(dir)
		}
		_ = unix.Rmdir(parent) // one that is not empty, or not there
	}
}

// cgroupEnds is for how long processes of a cgroup that were killed are waited for.
const cgroupEnds = 5 * time.Second

// removeCgroup kills what is in a cgroup and removes it.
func removeCgroup(dir string) {
	for end := time.Now().Add(cgroupEnds); time.Now().Before(end); {
		raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // one that is gone has none
		for _, word := range strings.Fields(string(raw)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
		if err := unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// run makes a pod with one container that sleeps, as a kubelet would have it, and
// gives the IDs of both.
func (c *contestant) run(ctx context.Context) (pod, ctr string, err error) {
	c.made++
	uid := fmt.Sprintf("%s-%d-%d", c.name, os.Getpid(), c.made)
	config := &rt.PodSandboxConfig{
		Metadata: &rt.PodSandboxMetadata{Name: uid, Namespace: "bench", Uid: uid}, Hostname: uid, LogDirectory: filepath.Join(c.logs, uid),
		DnsConfig: &rt.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"bench.svc.cluster.local", "svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:    map[string]string{"io.kubernetes.pod.name": uid, "io.kubernetes.pod.uid": uid},
		Linux: &rt.LinuxPodSandboxConfig{CgroupParent: c.cgroup + "/" + uid, SecurityContext: &rt.LinuxSandboxSecurityContext{
			NamespaceOptions: &rt.NamespaceOption{Pid: rt.NamespaceMode_CONTAINER},
			Seccomp:          &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}}},
	}
	sandbox, err := c.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: config})
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", c.name, err)
	}
	made, err := c.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, SandboxConfig: config, Config: &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: "main"}, Image: &rt.ImageSpec{Image: busyboxImage}, Args: []string{"sleep", "1000000"}, LogPath: "main/0.log",
		Envs:   []*rt.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("10.96.0.1")}, {Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")}},
		Labels: map[string]string{"io.kubernetes.container.name": "main", "io.kubernetes.pod.uid": uid},
		Linux: &rt.LinuxContainerConfig{
			Resources: &rt.LinuxContainerResources{CpuShares: 102, CpuPeriod: 100_000, CpuQuota: 50_000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 999},
			SecurityContext: &rt.LinuxContainerSecurityContext{
				NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions, Seccomp: config.Linux.SecurityContext.Seccomp,
				MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
				ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}}},
	}})
	if err != nil {
		return sandbox.PodSandboxId, "", fmt.Errorf("%s: %w", c.name, err)
	}
	if _, err := c.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return sandbox.PodSandboxId, "", fmt.Errorf("%s: %w", c.name, err)
	}
	return sandbox.PodSandboxId, made.ContainerId, nil
}

// clear removes every pod that there is.
func (c *contestant) clear(ctx context.Context) error {
	list, err := c.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, s := range list.GetItems() {
		if err := c.drop(ctx, s.GetId()); err != nil {
			return err
		}
	}
	return nil
}

// drop stops and removes a pod.
func (c *contestant) drop(ctx context.Context, pod string) error {
	if pod == "" {
		return nil
	}
	if _, err := c.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: pod}); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	if _, err := c.RemovePodSandbox(ctx, &rt.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// close removes the pods and ends the engine.
func (c *contestant) close(ctx context.Context) error {
	return errors.Join(c.clear(context.WithoutCancel(ctx)), c.Remote.Close(), c.end())
}

// besides are the processes that an engine keeps for its pods, and that are no
// container's: itself, keepers, shims and the processes that hold a sandbox.
func (c *contestant) besides() ([]int, error) {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	pids := []int{c.pid}
	for _, f := range found {
		line, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || pid == c.pid || pid == os.Getpid() {
			continue
		}
		text, dir := string(line), filepath.Dir(f)
		its := strings.Contains(text, c.root+"/") || text == "/pause\x00"
		if c.name == "sampan" {
			its = ours(dir, c.root+"/run")
		}
		if its {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// weight is the memory of those processes, in bytes.
func (c *contestant) weight() (bytes int64, processes int, err error) {
	pids, err := c.besides()
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range pids {
		pss, err := field(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"), "Pss:")
		if err != nil {
			continue // ended meanwhile
		}
		bytes += pss << 10
		processes++
	}
	return bytes, processes, nil
}

// contest prepares a directory with images and both engines on it; the second is nil
// where Debian's containerd is not installed.
func contest(ctx context.Context) (ours, theirs *contestant, close func() error, err error) {
	if runtime.GOARCH != "amd64" {
		return nil, nil, nil, errors.New("programs are written in amd64's machine code")
	}
	dir, err := os.MkdirTemp("", "sampan-bench-*")
	if err != nil {
		return nil, nil, nil, err
	}
	close = func() (err error) {
		for _, c := range []*contestant{ours, theirs} {
			if c != nil {
				err = errors.Join(err, c.close(ctx))
			}
		}
		return errors.Join(err, os.RemoveAll(dir))
	}
	archive := filepath.Join(dir, "images.tar")
	if err := makeImages(ctx, filepath.Join(dir, "images"), archive); err != nil {
		return nil, nil, nil, errors.Join(err, close())
	}
	if ours, err = ourEngine(ctx, dir); err != nil {
		return nil, nil, nil, errors.Join(err, close())
	}
	for _, need := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc", plugins + "/bridge"} {
		if _, err := exec.LookPath(need); err != nil {
			fmt.Fprintf(os.Stderr, "bench: no containerd to compare with: %v\n", err)
			return ours, nil, close, nil
		}
	}
	if theirs, err = theirEngine(ctx, dir, archive); err != nil {
		return nil, nil, nil, errors.Join(err, close())
	}
	return ours, theirs, close, nil
}
