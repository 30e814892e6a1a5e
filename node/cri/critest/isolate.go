package critest

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is here holds the engine to what the contract says of namespaces, mounts,
// capabilities, devices and groups of processes.

// capabilitySets: what is added is in all sets but the ambient one, what is added as
// ambient is in that too, also for a user who is not root, and what is dropped is in
// none. The inheritable set is left out of it: engines give nothing there since it
// was found to let programs keep what their user has not (CVE-2022-24769).
func capabilitySets(x *exam) {
	p := x.pod()
	const bind, raw = "0000000000000400", "0000000000002000"
	for what, c := range map[string]struct {
		set  *rt.Capability
		user int64
		want map[string]string
	}{
		"added": {&rt.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}, 0,
			map[string]string{"CapPrm": bind, "CapEff": bind, "CapBnd": bind, "CapAmb": "0000000000000000"}},
		"ambient": {&rt.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}, 33,
			map[string]string{"CapPrm": bind, "CapEff": bind, "CapBnd": bind, "CapAmb": bind, "CapInh": bind}},
		"both": {&rt.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_RAW"}, AddAmbientCapabilities: []string{"NET_RAW"}}, 33,
			map[string]string{"CapPrm": raw, "CapEff": raw, "CapBnd": raw, "CapAmb": raw, "CapInh": raw}},
		"dropped": {&rt.Capability{AddCapabilities: []string{"ALL"}, DropCapabilities: []string{"ALL"}}, 0,
			map[string]string{"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "CapInh": "0000000000000000"}},
		"added and dropped": {&rt.Capability{DropCapabilities: []string{"ALL", "NET_RAW"}, AddCapabilities: []string{"NET_RAW", "NET_BIND_SERVICE"}}, 0,
			map[string]string{"CapPrm": bind, "CapEff": bind, "CapBnd": bind}},
	} {
		cfg := p.container("cat", "/proc/self/status")
		cfg.Linux.SecurityContext.Capabilities = c.set
		cfg.Linux.SecurityContext.RunAsUser = &rt.Int64Value{Value: c.user}
		out, _ := p.output(cfg)
		for line := range strings.Lines(out) {
			field, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if want := c.want[field]; want != "" {
				x.equal(what+" "+field, value, want)
			}
		}
	}
}

// nodeNamespaces: a pod that wants the node's namespaces has those, and says so in
// its status.
func nodeNamespaces(x *exam) {
	p := x.pod(func(c *rt.PodSandboxConfig) {
		c.Hostname = "" // which is the node's, too
		o := c.Linux.SecurityContext.NamespaceOptions
		o.Pid, o.Ipc, o.Network = rt.NamespaceMode_NODE, rt.NamespaceMode_NODE, rt.NamespaceMode_NODE
	})
	id := p.start(p.container("wait"))
	for _, kind := range []string{"pid", "ipc", "net"} {
		out, _ := x.run(id, "link", "/proc/self/ns/"+kind)
		x.equal(kind, out, must(os.Readlink("/proc/thread-self/ns/"+kind))(x))
	}
	o := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id}))(x).Status.GetLinux().GetNamespaces().GetOptions()
	x.equal("namespaces in the status", []rt.NamespaceMode{o.GetPid(), o.GetIpc(), o.GetNetwork()},
		[]rt.NamespaceMode{rt.NamespaceMode_NODE, rt.NamespaceMode_NODE, rt.NamespaceMode_NODE})
	own := x.pod()
	id = own.start(own.container("wait"))
	for _, kind := range []string{"pid", "ipc", "net", "uts", "mnt"} {
		if out, _ := x.run(id, "link", "/proc/self/ns/"+kind); out == must(os.Readlink("/proc/thread-self/ns/"+kind))(x) {
			x.Errorf("an ordinary container has the node's %s namespace", kind)
		}
	}
}

// namespaceRefusals: a target is a container of the same pod, and users' namespaces
// are the pod's or the node's.
func namespaceRefusals(x *exam) {
	p, other := x.pod(), x.pod()
	elsewhere := other.start(other.container("wait"))
	for what, target := range map[string]string{"no target": "", "a target that is not there": strings.Repeat("f", 64), "a target of another pod": elsewhere} {
		c := p.container("wait")
		c.Linux.SecurityContext.NamespaceOptions = &rt.NamespaceOption{Pid: rt.NamespaceMode_TARGET, TargetId: target}
		made, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		if err != nil {
			continue
		}
		if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: made.ContainerId}); err == nil {
			x.Errorf("a container runs with %s", what)
		}
	}
	if _, features := x.features(); !features.GetUserNamespaces() {
		return
	}
	maps := []*rt.IDMapping{{HostId: 300000, Length: 65536}}
	for _, mode := range []rt.NamespaceMode{rt.NamespaceMode_CONTAINER, rt.NamespaceMode_TARGET} {
		c := x.config(func(c *rt.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &rt.UserNamespace{Mode: mode, Uids: maps, Gids: maps}
		})
		made, err := x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: c, RuntimeHandler: x.Handler})
		if err != nil {
			continue
		}
		x.Errorf("a sandbox has users of mode %v", mode)
		must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: made.PodSandboxId}))(x)
	}
}

// sharedDir is a directory whose mounts can go elsewhere and come from there.
func (x *exam) sharedDir() string {
	x.Helper()
	dir := x.TempDir()
	if err := unix.Mount("exam", dir, "tmpfs", 0, "size=1m"); err != nil {
		x.Skip("the exam may not mount: ", err)
	}
	x.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // with all that is below
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		x.Fatal(err)
	}
	for _, sub := range []string{"before", "host", "inside"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			x.Fatal(err)
		}
	}
	return dir
}

// mountOn makes a file system below dir, with a file that says so.
func (x *exam) mountOn(dir string) {
	x.Helper()
	if err := unix.Mount("exam", dir, "tmpfs", 0, "size=1m"); err != nil {
		x.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("mounted"), 0o644); err != nil {
		x.Fatal(err)
	}
}

// mountPropagation: what is mounted later goes where the mode says, and not where it
// does not.
func mountPropagation(x *exam) {
	for _, c := range []struct {
		mode       rt.MountPropagation
		fromHost   string
		fromInside bool
	}{
		{rt.MountPropagation_PROPAGATION_PRIVATE, "", false},
		{rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, "mounted", false},
		{rt.MountPropagation_PROPAGATION_BIDIRECTIONAL, "mounted", true},
	} {
		dir := x.sharedDir()
		x.mountOn(filepath.Join(dir, "before"))
		p := x.pod(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
		ctr := p.container("wait")
		ctr.Linux.SecurityContext.Privileged = true
		ctr.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: dir, Propagation: c.mode}}
		id := p.start(ctr)
		got, _ := x.run(id, "cat", "/data/before/file")
		x.equal(fmt.Sprint(c.mode, ": what was mounted before"), got, "mounted")
		x.mountOn(filepath.Join(dir, "host"))
		got, _ = x.run(id, "cat", "/data/host/file")
		if strings.Contains(got, "no such file") {
			got = ""
		}
		x.equal(fmt.Sprint(c.mode, ": what the host mounts"), got, c.fromHost)
		out, code := x.run(id, "tmpfs", "/data/inside")
		x.equal("mounting in a privileged container: "+out, code, 0)
		_, err := os.Stat(filepath.Join(dir, "inside/file"))
		x.equal(fmt.Sprint(c.mode, ": what the container mounts"), err == nil, c.fromInside)
	}
}

// readOnlyBelow: read-only is the mount alone, recursively so what is below it too.
func readOnlyBelow(x *exam) {
	_, features := x.features()
	for _, recursive := range []bool{false, true} {
		if recursive && !features.GetRecursiveReadOnlyMounts() {
			x.Skip("the engine has no recursively read-only mounts")
		}
		dir := x.sharedDir()
		x.mountOn(filepath.Join(dir, "before"))
		p := x.pod()
		for path, want := range map[string]bool{"/data/file": false, "/data/before/file": !recursive} {
			c := p.container("write", path, "x")
			c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: dir, Readonly: true, RecursiveReadOnly: recursive}}
			_, st := p.output(c)
			x.equal(fmt.Sprintf("%s can be written, recursive %v", path, recursive), st.ExitCode == 0, want)
		}
	}
}

// devicePermissions: a device that may only be read is only read, and a privileged
// container has every device of the host.
func devicePermissions(x *exam) {
	p := x.pod(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	for perm, want := range map[string]int32{"r": 3, "rw": 0} {
		c := p.container("write", "/dev/clone", "x")
		// A device that no container has of itself.
		c.Devices = []*rt.Device{{ContainerPath: "/dev/clone", HostPath: "/dev/kmsg", Permissions: perm}}
		c.Linux.SecurityContext.Capabilities = &rt.Capability{AddCapabilities: []string{"ALL"}}
		_, st := p.output(c)
		x.equal("writing to a device with "+perm, st.ExitCode, want)
	}
	c := p.container("list", "/dev", "then", "write", "/dev/kmsg", "exam: a privileged container was here")
	c.Linux.SecurityContext.Privileged = true
	out, st := p.output(c)
	x.equal("using a device of the host", st.ExitCode, 0)
	inside := strings.Fields(out)
	for _, d := range must(os.ReadDir("/dev"))(x) {
		own := slices.Contains([]string{"console", "ptmx", "tty"}, d.Name()) || strings.HasPrefix(d.Name(), ".")
		if d.Type()&fs.ModeDevice != 0 && !own && !slices.Contains(inside, d.Name()) {
			x.Errorf("a privileged container has no /dev/%s", d.Name())
		}
	}
}

// group finds a file of the cgroup of a container, by the name that it has in the one
// hierarchy or in the other, and reads it.
func (p *pod) group(id, unified, old string) string {
	p.Helper()
	if p.Cgroup == "" {
		p.Skip("the engine chooses the cgroups")
	}
	found := ""
	for _, root := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		tops, err := filepath.Glob(root + filepath.Join("/", p.Cgroup))
		if err != nil {
			p.Fatal(err)
		}
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				in := strings.Contains(path, p.config.Metadata.Uid) && strings.Contains(path, id)
				if err == nil && in && (d.Name() == unified || d.Name() == old) {
					found = path
				}
				return nil // what is gone is another's
			})
		}
	}
	if found == "" {
		p.Errorf("no file %s or %s of container %s below %s", unified, old, id, p.Cgroup)
		return ""
	}
	return strings.TrimSpace(string(must(os.ReadFile(found))(p.exam)))
}

// resources: what a container may use is what the kernel was told, in the pod's own
// cgroup, and what its status says.
func resources(x *exam) {
	p := x.pod()
	c := p.container("status", "Cpus_allowed_list", "then", "wait")
	c.Linux.Resources = &rt.LinuxContainerResources{CpuPeriod: 50000, CpuQuota: 20000, CpuShares: 512,
		MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20, CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 321}
	id := p.start(c)
	x.says(id, "waiting")
	x.equal("CPUs", strings.SplitN(x.log(x.status(id).LogPath), "\n", 2)[0], "0")
	for _, f := range []struct {
		unified, old string
		want         []string
	}{
		{"cpu.max", "cpu.cfs_quota_us", []string{"20000 50000", "20000"}},
		{"cpu.weight", "cpu.shares", []string{"20", "59", "512"}}, // of which two are ways to convert it
		{"memory.max", "memory.limit_in_bytes", []string{"67108864"}},
		{"cpuset.mems", "cpuset.mems", []string{"0"}},
	} {
		if got := p.group(id, f.unified, f.old); !slices.Contains(f.want, got) {
			x.Errorf("%s is %q, want one of %q", f.unified, got, f.want)
		}
	}
	if got, want := x.status(id).Resources.GetLinux(), c.Linux.Resources; got != nil { // which came after v1 did
		for what, v := range map[string][2]int64{"period": {got.CpuPeriod, want.CpuPeriod}, "quota": {got.CpuQuota, want.CpuQuota},
			"shares": {got.CpuShares, want.CpuShares}, "memory": {got.MemoryLimitInBytes, want.MemoryLimitInBytes}, "OOM score": {got.OomScoreAdj, want.OomScoreAdj}} {
			x.equal(what+" in the status", v[0], v[1])
		}
		x.equal("CPUs in the status", got.CpusetCpus, want.CpusetCpus)
	}
}

// wholeUpdates: of an update that cannot be done, nothing is.
func wholeUpdates(x *exam) {
	p := x.pod()
	c := p.container("wait")
	c.Linux.Resources = &rt.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}
	id := p.start(c)
	before := x.status(id).Resources
	_, err := x.e.UpdateContainerResources(x.ctx(), &rt.UpdateContainerResourcesRequest{ContainerId: id,
		Linux: &rt.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuShares: 700, CpusetCpus: "9999"}})
	if err == nil {
		x.Error("a container may use a CPU that is not there")
	}
	x.equal("resources in the status", x.status(id).Resources, before)
	if got := p.group(id, "memory.max", "memory.limit_in_bytes"); got != "67108864" {
		x.Errorf("the memory limit is %s after an update that failed", got)
	}
}

// portMappings: what the host's port gets goes to the pod's port, and the port is
// free again when the pod is stopped, as the pod's address is.
func portMappings(x *exam) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		x.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port // of one that is free, most likely
	l.Close()
	client := x.pod()
	gateway := client.gateway()
	for range 2 {
		server := x.pod(func(c *rt.PodSandboxConfig) {
			c.PortMappings = []*rt.PortMapping{{ContainerPort: 8080, HostPort: int32(port)}}
		})
		x.says(server.start(server.container("serve", "8080")), "serving")
		ip := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: server.id}))(x).Status.Network.Ip
		got, _ := client.output(client.container("get", fmt.Sprintf("%s:%d", gateway, port)))
		x.equal("at the host's port", got, "hello from "+server.config.Hostname)
		must(x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: server.id}))(x)
		for _, at := range []string{fmt.Sprintf("%s:%d", gateway, port), ip + ":8080"} {
			if got, _ := client.output(client.container("get", at)); strings.Contains(got, server.config.Hostname) {
				x.Errorf("a stopped pod answers at %s: %q", at, got)
			}
		}
	}
}

// gateway is the host's address as a pod sees it.
func (p *pod) gateway() string {
	p.Helper()
	out, _ := p.output(p.container("cat", "/proc/net/route"))
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 3 || f[1] != "00000000" {
			continue
		}
		var a, b, c, d byte
		if _, err := fmt.Sscanf(f[2], "%02X%02X%02X%02X", &d, &c, &b, &a); err == nil {
			return net.IPv4(a, b, c, d).String()
		}
	}
	p.Fatalf("a pod has no way out: %s", out)
	return ""
}
