package critest

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func containerLife(x *exam) {
	p := x.pod()
	c := p.container("wait")
	id := p.create(c)
	st := x.status(id)
	x.equal("state", st.State, rt.ContainerState_CONTAINER_CREATED)
	x.equal("started at", st.StartedAt, 0)
	x.equal("metadata", st.Metadata, c.Metadata)
	x.equal("labels", st.Labels, c.Labels)
	x.equal("annotations", st.Annotations, c.Annotations)
	x.equal("log path", st.LogPath, filepath.Join(p.config.LogDirectory, c.LogPath))
	x.equal("image", st.Image.GetImage(), x.Image)
	if features, _ := x.features(); st.ImageRef == "" || st.ImageId == "" && features != nil || st.CreatedAt <= 0 {
		x.Errorf("status %v is not complete", st)
	}
	must(x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: id}))(x)
	st = x.status(id)
	x.equal("state after start", st.State, rt.ContainerState_CONTAINER_RUNNING)
	if st.StartedAt < st.CreatedAt {
		x.Errorf("started at %d, before it was created at %d", st.StartedAt, st.CreatedAt)
	}
	if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: id}); err == nil {
		x.Error("a running container was started")
	}
	x.says(id, "waiting")
	for range 2 {
		must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id, Timeout: 10}))(x)
	}
	st = x.status(id)
	x.equal("state after stop", st.State, rt.ContainerState_CONTAINER_EXITED)
	x.equal("exit code", st.ExitCode, 0)
	x.equal("reason", st.Reason, "Completed")
	if st.FinishedAt < st.StartedAt {
		x.Errorf("finished at %d, before it was started at %d", st.FinishedAt, st.StartedAt)
	}
	x.equal("log", x.log(st.LogPath), "waiting\ngot terminated\n")
	for range 2 {
		must(x.e.RemoveContainer(x.ctx(), &rt.RemoveContainerRequest{ContainerId: id}))(x)
		_, err := x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id})
		x.code("status after removal", err, codes.NotFound)
	}
	_, err := x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id})
	x.gone(err)
	if _, err := os.Stat(st.LogPath); err != nil {
		x.Errorf("the log went with the container: %v", err)
	}
}

func containerLists(x *exam) {
	p, other := x.pod(), x.pod()
	created := p.create(p.container("wait"))
	running := p.start(p.container("wait"))
	exited := p.start(p.container("exit", "1"))
	x.ended(exited)
	elsewhere := other.create(other.container("wait"))
	state := func(s rt.ContainerState) *rt.ContainerStateValue { return &rt.ContainerStateValue{State: s} }
	for what, c := range map[string]struct {
		f    *rt.ContainerFilter
		want []string
	}{
		"sandbox": {&rt.ContainerFilter{PodSandboxId: p.id}, []string{created, running, exited}},
		"created": {&rt.ContainerFilter{PodSandboxId: p.id, State: state(rt.ContainerState_CONTAINER_CREATED)}, []string{created}},
		"running": {&rt.ContainerFilter{PodSandboxId: p.id, State: state(rt.ContainerState_CONTAINER_RUNNING)}, []string{running}},
		"exited":  {&rt.ContainerFilter{PodSandboxId: p.id, State: state(rt.ContainerState_CONTAINER_EXITED)}, []string{exited}},
		"id":      {&rt.ContainerFilter{Id: elsewhere[:13]}, []string{elsewhere}},
		"labels":  {&rt.ContainerFilter{LabelSelector: x.status(running).Labels}, []string{running}},
		"nothing": {&rt.ContainerFilter{Id: running, PodSandboxId: other.id}, nil},
	} {
		var got []string
		for _, s := range must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: c.f}))(x).Containers {
			got = append(got, s.Id)
		}
		x.same(what, got, c.want)
	}
}

func containerNames(x *exam) {
	p := x.pod()
	c := p.container("wait")
	id := p.create(c)
	request := &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}
	_, err := x.e.CreateContainer(x.ctx(), request)
	if err == nil {
		x.Error("two containers have one name and attempt")
	}
	c.Metadata.Attempt = 1
	must(x.e.CreateContainer(x.ctx(), request))(x)
	must(x.e.RemoveContainer(x.ctx(), &rt.RemoveContainerRequest{ContainerId: id}))(x)
	c.Metadata.Attempt = 0
	must(x.e.CreateContainer(x.ctx(), request))(x)

	missing := p.container("wait")
	missing.Image.Image = "registry.invalid/no/such:image"
	_, err = x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: missing, SandboxConfig: p.config})
	x.code("an image that is not here", err, codes.NotFound)
	_, err = x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: strings.Repeat("f", 64), Config: c, SandboxConfig: p.config})
	x.code("a sandbox that is not here", err, codes.NotFound)
}

func containerCannotStart(x *exam) {
	p := x.pod()
	c := p.container()
	c.Command = []string{"/no/such/program"}
	id := p.create(c)
	if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: id}); err == nil {
		x.Error("a program that is not there was started")
	} else if !strings.Contains(err.Error(), "/no/such/program") {
		x.Errorf("error %q does not name the program", err)
	}
	st := x.ended(id)
	x.equal("exit code", st.ExitCode, 128)
	x.equal("reason", st.Reason, "StartError")
}

// containerProcess: how the image's configuration and the pod's are put
// together.
func containerProcess(x *exam) {
	p := x.pod()
	got, st := p.output(p.container())
	x.equal("the image's own arguments", got, "from the image")
	x.equal("exit code", st.ExitCode, 0)
	got, _ = p.output(p.container("cwd"))
	x.equal("the image's directory", got, "/work")

	c := p.container("env", "FROM", "then", "env", "ADDED", "then", "env", "HOME", "then", "cwd")
	c.WorkingDir = "/tmp"
	c.Envs = []*rt.KeyValue{{Key: "FROM", Value: []byte("pod")}, {Key: "ADDED", Value: []byte("a=b")}}
	got, _ = p.output(c)
	x.equal("environment and directory", got, "pod\na=b\n/root\n/tmp")

	c = p.container("not", "used")
	c.Command, c.Args = []string{"/probe", "echo"}, []string{"from", "the", "pod"}
	got, _ = p.output(c)
	x.equal("the pod's own command", got, "from the pod")
	_, st = p.output(p.container("exit", "42"))
	x.equal("exit code", st.ExitCode, 42)
	x.equal("reason", st.Reason, "Error")
}

func containerUsers(x *exam) {
	p := x.pod()
	id := func(n int64) *rt.Int64Value { return &rt.Int64Value{Value: n} }
	for what, c := range map[string]struct {
		set  func(*rt.LinuxContainerSecurityContext)
		want string
	}{
		"root":           {func(*rt.LinuxContainerSecurityContext) {}, "0 0 [0]"},
		"a number":       {func(s *rt.LinuxContainerSecurityContext) { s.RunAsUser = id(1234) }, "1234 0 [0]"},
		"a known number": {func(s *rt.LinuxContainerSecurityContext) { s.RunAsUser = id(33) }, "33 34 [34 44]"},
		"a name":         {func(s *rt.LinuxContainerSecurityContext) { s.RunAsUsername = "web" }, "33 34 [34 44]"},
		"user and group": {func(s *rt.LinuxContainerSecurityContext) { s.RunAsUser, s.RunAsGroup = id(1), id(2) }, "1 2 [2]"},
		"more groups":    {func(s *rt.LinuxContainerSecurityContext) { s.RunAsUser, s.SupplementalGroups = id(33), []int64{77} }, "33 34 [34 44 77]"},
		"only those asked": {func(s *rt.LinuxContainerSecurityContext) {
			s.RunAsUser, s.SupplementalGroups, s.SupplementalGroupsPolicy = id(33), []int64{77}, rt.SupplementalGroupsPolicy_Strict
		}, "33 34 [34 77]"},
	} {
		cfg := p.container("id")
		c.set(cfg.Linux.SecurityContext)
		strict := cfg.Linux.SecurityContext.SupplementalGroupsPolicy == rt.SupplementalGroupsPolicy_Strict
		if features, _ := x.features(); strict && !features.GetSupplementalGroupsPolicy() {
			continue
		}
		got, _ := p.output(cfg)
		x.equal(what, got, c.want)
	}
	cfg := p.container("id")
	cfg.Linux.SecurityContext.RunAsUsername = "nobody-of-that-name"
	if _, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: cfg, SandboxConfig: p.config}); err == nil {
		x.Error("a user that the image has not got was accepted")
	}
}

func containerConfinement(x *exam) {
	p := x.pod()
	show := func(set func(*rt.ContainerConfig), args ...string) string {
		x.Helper()
		c := p.container(args...)
		set(c)
		out, _ := p.output(c)
		return strings.TrimSpace(out)
	}
	plain := func(*rt.ContainerConfig) {}
	x.equal("seccomp by default", show(plain, "status", "Seccomp"), 2)
	x.equal("unconfined", show(func(c *rt.ContainerConfig) {
		c.Linux.SecurityContext.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	}, "status", "Seccomp"), 0)
	x.equal("no new privileges", show(func(c *rt.ContainerConfig) { c.Linux.SecurityContext.NoNewPrivs = true }, "status", "NoNewPrivs"), 1)
	x.equal("default capabilities", show(plain, "status", "CapEff"), "00000000a80425fb")
	x.equal("none", show(func(c *rt.ContainerConfig) {
		c.Linux.SecurityContext.Capabilities = &rt.Capability{DropCapabilities: []string{"ALL"}}
	}, "status", "CapEff"), "0000000000000000")
	x.equal("one", show(func(c *rt.ContainerConfig) {
		c.Linux.SecurityContext.Capabilities = &rt.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
	}, "status", "CapBnd"), "0000000000000400")
	x.equal("a user's", show(func(c *rt.ContainerConfig) { c.Linux.SecurityContext.RunAsUser = &rt.Int64Value{Value: 33} }, "status", "CapEff"), "0000000000000000")
	x.equal("oom score", show(func(c *rt.ContainerConfig) { c.Linux.Resources.OomScoreAdj = 500 }, "cat", "/proc/self/oom_score_adj"), 500)
	for what, out := range map[string]string{
		"a read-only root":         show(func(c *rt.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true }, "write", "/tmp/x", "y"),
		"a read-only path":         show(plain, "write", "/proc/sys/kernel/domainname", "x"),
		"the host's kernel memory": show(plain, "cat", "/proc/kcore"),
	} {
		if out != "" && !strings.Contains(out, "read-only") && !strings.Contains(out, "denied") && !strings.Contains(out, "no such file") {
			x.Errorf("%s: got %.80q, want a refusal or nothing", what, out)
		}
	}
	p = x.pod(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	x.equal("privileged", show(func(c *rt.ContainerConfig) {
		c.Linux.SecurityContext.Privileged = true
	}, "status", "Seccomp", "then", "write", "/proc/sys/kernel/domainname", "(none)", "then", "echo", "done"), "0\ndone")
}

func containerMounts(x *exam) {
	dir := x.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from the host"), 0o644); err != nil {
		x.Fatal(err)
	}
	p := x.pod()
	c := p.container("cat", "/data/file", "then", "write", "/data/new", "from inside")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: dir}}
	got, _ := p.output(c)
	x.equal("a file of the host", got, "from the host")
	x.equal("a file for the host", string(must(os.ReadFile(filepath.Join(dir, "new")))(x)), "from inside")

	_, features := x.features()
	for _, recursive := range []bool{false, true} {
		if recursive && !features.GetRecursiveReadOnlyMounts() {
			continue
		}
		c = p.container("write", "/data/file", "changed")
		c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: dir, Readonly: true, RecursiveReadOnly: recursive}}
		_, st := p.output(c)
		x.equal("writing to what is read-only", st.ExitCode, 3)
	}
	c = p.container("cat", "/etc/hosts")
	c.Mounts = []*rt.Mount{{ContainerPath: "/etc/hosts", HostPath: filepath.Join(dir, "file")}}
	got, _ = p.output(c)
	x.equal("a mount in the place of the sandbox's", got, "from the host")

	// What is not there becomes a directory: a hostPath volume without a type lives on it.
	missing := filepath.Join(dir, "missing", "too")
	c = p.container("write", "/data/new", "into what was missing")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: missing}}
	p.output(c)
	x.equal("a file in what was missing", string(must(os.ReadFile(filepath.Join(missing, "new")))(x)), "into what was missing")
	c = p.container("wait")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: filepath.Join(dir, "file", "below")}}
	if _, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}); err == nil {
		x.Error("a mount of what can't be was accepted")
	}
	c = p.container("write", "/dev/nothing", "x", "then", "echo", "written")
	c.Devices = []*rt.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nothing", Permissions: "rw"}}
	got, _ = p.output(c)
	x.equal("a device", got, "written")

	c = p.container("cat", "/data/etc/group", "then", "write", "/data/etc/group", "x")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", Image: &rt.ImageSpec{Image: x.Image}, Readonly: true}}
	got, st := p.output(c)
	if !strings.Contains(got, "root:x:0:") || st.ExitCode != 3 {
		x.Errorf("an image as a volume shows %q, and writing to it ends with %d", got, st.ExitCode)
	}

	// What one container wrote is not in the next one's root.
	p.output(p.container("write", "/tmp/mine", "x"))
	_, st = p.output(p.container("cat", "/tmp/mine"))
	x.equal("reading another container's file", st.ExitCode, 3)
}

func containerStop(x *exam) {
	p := x.pod()
	id := p.start(p.container("stubborn"))
	x.says(id, "ignoring")
	began := time.Now()
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id, Timeout: 1}))(x)
	if took := time.Since(began); took < time.Second {
		x.Errorf("killed after %v, want a grace period of one second", took)
	}
	x.equal("exit code", x.status(id).ExitCode, 137)

	id = p.start(p.container("stubborn"))
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id}))(x)
	x.equal("exit code without grace", x.status(id).ExitCode, 137)

	c := p.container("wait")
	c.StopSignal = rt.Signal_SIGNAL_SIGUSR1
	id = p.start(c)
	x.says(id, "waiting")
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id, Timeout: 10}))(x)
	x.equal("log", x.log(x.status(id).LogPath), "waiting\ngot user defined signal 1\n")
	x.equal("stop signal", x.status(id).StopSignal, rt.Signal_SIGNAL_SIGUSR1)
}

func containerOutOfMemory(x *exam) {
	p := x.pod()
	c := p.container("eat", "512")
	c.Linux.Resources.MemoryLimitInBytes = 32 << 20
	c.Linux.Resources.MemorySwapLimitInBytes = 32 << 20
	_, st := p.output(c)
	x.equal("reason", st.Reason, "OOMKilled")
	x.equal("exit code", st.ExitCode, 137)
}

func containerUpdate(x *exam) {
	p := x.pod()
	c := p.container("wait")
	c.Linux.Resources = &rt.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}
	id := p.start(c)
	must(x.e.UpdateContainerResources(x.ctx(), &rt.UpdateContainerResourcesRequest{ContainerId: id,
		Linux: &rt.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}}))(x)
	r := x.status(id).Resources.GetLinux()
	x.equal("memory limit", r.GetMemoryLimitInBytes(), 128<<20)
	x.equal("cpu shares", r.GetCpuShares(), 512)
	st := must(x.e.ContainerStats(x.ctx(), &rt.ContainerStatsRequest{ContainerId: id}))(x).Stats
	if free := st.Memory.GetAvailableBytes().GetValue(); free <= 64<<20 {
		x.Errorf("available memory is %d, the new limit does not hold", free)
	}
	_, err := x.e.UpdateContainerResources(x.ctx(), &rt.UpdateContainerResourcesRequest{ContainerId: strings.Repeat("f", 64), Linux: r})
	x.code("an unknown container", err, codes.NotFound)
}

func containerLogs(x *exam) {
	p := x.pod()
	c := p.container("echo", "to stdout", "then", "complain", "to stderr", "then", "wait")
	id := p.start(c)
	x.says(id, "waiting")
	x.says(id, "to stderr") // each stream is read by itself
	path := x.status(id).LogPath
	var streams []string
	for line := range strings.Lines(string(must(os.ReadFile(path))(x))) {
		if f := strings.SplitN(strings.TrimSpace(line), " ", 4); len(f) == 4 {
			streams = append(streams, f[1]+" "+f[2]+" "+f[3])
		}
	}
	for _, want := range []string{"stdout F to stdout", "stderr F to stderr", "stdout F waiting"} {
		if !strings.Contains(strings.Join(streams, "\n"), want) {
			x.Errorf("log %q has no line %q", streams, want)
		}
	}
	if err := os.Rename(path, path+".1"); err != nil {
		x.Fatal(err)
	}
	must(x.e.ReopenContainerLog(x.ctx(), &rt.ReopenContainerLogRequest{ContainerId: id}))(x)
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id, Timeout: 10}))(x)
	x.equal("the new log", x.log(path), "got terminated\n")
	if err := os.Remove(path); err != nil {
		x.Fatal(err)
	}
	if _, err := x.e.ReopenContainerLog(x.ctx(), &rt.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		if _, err := os.Stat(path); err == nil {
			x.Error("a refused reopening made a log file")
		}
	}
}
