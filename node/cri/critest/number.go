package critest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is here holds the engine to the contract's sentences about what it tells: of
// itself, of what runs, and of what that uses.

// semver is what semantic versioning allows, with or without the letter.
var semver = regexp.MustCompile(`^v?\d+(\.\d+){0,2}([-+~.][0-9A-Za-z.+~-]*)?$`)

// versions can be compared, and more is told about the engine to whoever asks.
func versions(x *exam) {
	v := must(x.e.Version(x.ctx(), &rt.VersionRequest{}))(x)
	for what, text := range map[string]string{"the runtime": v.RuntimeVersion, "its API": v.RuntimeApiVersion} {
		if !semver.MatchString(text) {
			x.Errorf("version %q of %s is not a semantic one", text, what)
		}
	}
	if v.Version == "" {
		x.Error("the agent's API has no version")
	}
	for _, verbose := range []bool{false, true} {
		st := must(x.e.Status(x.ctx(), &rt.StatusRequest{Verbose: verbose}))(x)
		x.equal("more is told about the engine", len(st.Info) > 0, verbose)
	}
}

// sandboxAttempts: a sandbox has its name by its metadata, of which the attempt is a
// part, and its status says by whom it is run.
func sandboxAttempts(x *exam) {
	c := x.config()
	first := x.sandbox(c)
	again := x.config(func(again *rt.PodSandboxConfig) {
		again.Metadata = &rt.PodSandboxMetadata{Name: c.Metadata.Name, Namespace: c.Metadata.Namespace, Uid: c.Metadata.Uid, Attempt: 1}
	})
	second := x.sandbox(again)
	if first == second {
		x.Error("two attempts have one ID")
	}
	st := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: second}))(x).Status
	x.equal("attempt", st.Metadata.Attempt, 1)
	x.equal("ID", st.Id, second)
	x.equal("handler", st.RuntimeHandler, x.Handler)
	alone := x.config(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.RunAsGroup = &rt.Int64Value{Value: 34} })
	if made, err := x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: alone, RuntimeHandler: x.Handler}); err == nil {
		x.Error("a sandbox has a group to run as and no user")
		must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: made.PodSandboxId}))(x)
	}
}

// runningRemoval: a container that runs is removed all the same.
func runningRemoval(x *exam) {
	p := x.pod()
	id := p.start(p.container("stubborn"))
	x.says(id, "ignoring")
	must(x.e.RemoveContainer(x.ctx(), &rt.RemoveContainerRequest{ContainerId: id}))(x)
	_, err := x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id})
	x.code("status of a container that was removed while it ran", err, codes.NotFound)
}

// logPaths are below the pod's directory, and may have directories of their own.
func logPaths(x *exam) {
	p := x.pod()
	c := p.container("echo", "in a directory")
	c.LogPath = "name/0.log"
	if err := os.MkdirAll(filepath.Join(p.config.LogDirectory, "name"), 0o755); err != nil {
		x.Fatal(err)
	}
	out, st := p.output(c)
	x.equal("log", out, "in a directory")
	x.equal("path", st.LogPath, filepath.Join(p.config.LogDirectory, "name/0.log"))
}

// identities: a status tells whom the first process is at its start, and which signal
// ends it.
func identities(x *exam) {
	features, _ := x.features()
	if !features.GetSupplementalGroupsPolicy() {
		x.Skip("the engine tells no users")
	}
	p := x.pod()
	c := p.container("id")
	c.Linux.SecurityContext.RunAsUser = &rt.Int64Value{Value: 33}
	c.Linux.SecurityContext.SupplementalGroups = []int64{77}
	id := p.create(c)
	u := x.status(id).User.GetLinux()
	groups := slices.Sorted(slices.Values(u.GetSupplementalGroups()))
	if i, ok := slices.BinarySearch(groups, u.GetGid()); ok {
		groups = slices.Delete(groups, i, i+1) // the first group may be among the others
	}
	x.equal("user, group and other groups", fmt.Sprint(u.GetUid(), u.GetGid(), groups), "33 34 [44 77]")
	if got := x.status(id).StopSignal; got != rt.Signal_SIGNAL_SIGTERM && got != rt.Signal_SIGNAL_RUNTIME_DEFAULT {
		x.Errorf("what has no signal of its own is stopped by %v", got)
	}
}

// podStatuses: a pod's status may have its containers' with it, all at one time.
func podStatuses(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	st := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id}))(x)
	if len(st.ContainersStatuses) == 0 {
		x.Skip("the engine tells a pod's status without its containers'")
	}
	x.equal("containers", len(st.ContainersStatuses), 1)
	x.equal("its status", st.ContainersStatuses[0], x.status(id))
	if st.Timestamp <= 0 || st.Timestamp < st.ContainersStatuses[0].StartedAt {
		x.Errorf("they were recorded at %d, and a container started at %d", st.Timestamp, st.ContainersStatuses[0].StartedAt)
	}
}

// fullURLs: where streams are served is a whole address.
func fullURLs(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	for what, address := range map[string]string{
		"exec":         must(x.e.Exec(x.ctx(), &rt.ExecRequest{ContainerId: id, Cmd: []string{"/probe", "echo"}, Stdout: true}))(x).Url,
		"attach":       must(x.e.Attach(x.ctx(), &rt.AttachRequest{ContainerId: id, Stdout: true}))(x).Url,
		"port forward": must(x.e.PortForward(x.ctx(), &rt.PortForwardRequest{PodSandboxId: p.id, Port: []int32{80}}))(x).Url,
	} {
		if u, err := url.Parse(address); err != nil || u.Scheme == "" || u.Host == "" {
			x.Errorf("%s is at %q, %v", what, address, err)
		}
	}
}

// errorOutput: standard error is cut where it is too long, and the command goes on.
func errorOutput(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	const limit = 16 << 20
	r := must(x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "rage", fmt.Sprint(limit + 1000), "then", "exit", "5"}}))(x)
	x.equal("length of endless errors", len(r.Stderr), limit)
	x.equal("exit code of what was cut", r.ExitCode, 5)
}

// oldProfiles: profiles by their old names mean what they meant, and one that is not
// a whole path or that nobody has is refused.
func oldProfiles(x *exam) {
	p := x.pod()
	for name, want := range map[string]string{"runtime/default": "2", "unconfined": "0", "": "0"} {
		c := p.container("status", "Seccomp")
		c.Linux.SecurityContext.Seccomp = nil
		c.Linux.SecurityContext.SeccompProfilePath = name //nolint:staticcheck // old agents still send it
		got, _ := p.output(c)
		x.equal(name, got, want)
	}
	for what, change := range map[string]func(*rt.LinuxContainerSecurityContext){
		"an old seccomp profile that is not there": func(s *rt.LinuxContainerSecurityContext) {
			s.Seccomp = nil
			s.SeccompProfilePath = "localhost/" + filepath.Join(x.TempDir(), "none.json") //nolint:staticcheck // old agents still send it
		},
		"a seccomp profile without a whole path": func(s *rt.LinuxContainerSecurityContext) {
			s.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: "exam.json"}
		},
		"an AppArmor profile that nobody loaded": func(s *rt.LinuxContainerSecurityContext) {
			s.Apparmor = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: "sampan-exam-none"}
		},
	} {
		c := p.container("wait")
		change(c.Linux.SecurityContext)
		made, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		if err == nil {
			_, err = x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: made.ContainerId})
		}
		if err == nil {
			x.Errorf("a container runs with %s", what)
		}
	}
}

// numbers: every measurement has its time and whose it is, and what is available is
// what the limit leaves.
func numbers(x *exam) {
	p := x.pod()
	c := p.container("write", "/tmp/file", strings.Repeat("x", 10000), "then", "wait")
	c.Linux.Resources.MemoryLimitInBytes = 64 << 20
	id := p.start(c)
	x.says(id, "waiting")
	var st *rt.ContainerStats
	x.until("the writable layer is measured", func() bool {
		list := must(x.e.ListContainerStats(x.ctx(), &rt.ListContainerStatsRequest{Filter: &rt.ContainerStatsFilter{Id: id, PodSandboxId: p.id, LabelSelector: c.Labels}}))(x).Stats
		if len(list) != 1 {
			x.Fatalf("%d containers instead of one", len(list))
		}
		st = list[0]
		return st.WritableLayer.GetUsedBytes().GetValue() > 0
	})
	x.equal("the container's attributes", fmt.Sprint(st.Attributes.Metadata, st.Attributes.Labels, st.Attributes.Annotations), fmt.Sprint(c.Metadata, c.Labels, c.Annotations))
	for what, at := range map[string]int64{"cpu": st.Cpu.GetTimestamp(), "memory": st.Memory.GetTimestamp(), "disk": st.WritableLayer.GetTimestamp()} {
		if at <= 0 || at > time.Now().Add(time.Minute).UnixNano() {
			x.Errorf("%s was measured at %d", what, at)
		}
	}
	if st.WritableLayer.GetFsId().GetMountpoint() == "" {
		x.Error("the writable layer is on no file system")
	}
	x.equal("limit of the memory", st.Memory.GetAvailableBytes().GetValue()+st.Memory.GetWorkingSetBytes().GetValue(), 64<<20)
	x.equal("containers with a label of another value", len(must(x.e.ListContainerStats(x.ctx(), &rt.ListContainerStatsRequest{
		Filter: &rt.ContainerStatsFilter{PodSandboxId: p.id, LabelSelector: map[string]string{"name": ""}}}))(x).Stats), 0)

	pods := must(x.e.ListPodSandboxStats(x.ctx(), &rt.ListPodSandboxStatsRequest{Filter: &rt.PodSandboxStatsFilter{Id: p.id, LabelSelector: p.config.Labels}}))(x).Stats
	if len(pods) != 1 {
		x.Fatalf("%d pods instead of one", len(pods))
	}
	a, n := pods[0].Attributes, pods[0].Linux.GetNetwork()
	x.equal("the pod's attributes", fmt.Sprint(a.Id, a.Metadata, a.Labels, a.Annotations), fmt.Sprint(p.id, p.config.Metadata, p.config.Labels, p.config.Annotations))
	if n.GetTimestamp() <= 0 || n.GetDefaultInterface().GetName() == "" || n.GetDefaultInterface().GetTxBytes() == nil {
		x.Errorf("network %v is not complete", n)
	}
	for what, at := range map[string]int64{"cpu": pods[0].Linux.GetCpu().GetTimestamp(), "memory": pods[0].Linux.GetMemory().GetTimestamp(), "processes": pods[0].Linux.GetProcess().GetTimestamp()} {
		if at <= 0 {
			x.Errorf("the pod's %s was measured at %d", what, at)
		}
	}
	if pods[0].Linux.GetProcess().GetProcessCount().GetValue() == 0 {
		x.Error("a running pod has no process")
	}
	x.equal("pods with a label of another value", len(must(x.e.ListPodSandboxStats(x.ctx(), &rt.ListPodSandboxStatsRequest{
		Filter: &rt.PodSandboxStatsFilter{Id: p.id, LabelSelector: map[string]string{"n": ""}}}))(x).Stats), 0)
	for _, fs := range must(x.e.ImageFsInfo(x.ctx(), &rt.ImageFsInfoRequest{}))(x).ImageFilesystems {
		if fs.Timestamp <= 0 {
			x.Errorf("images were measured at %d", fs.Timestamp)
		}
	}
}

// metricPromises: descriptors stay as they are, and what is measured at once has no
// time of its own.
func metricPromises(x *exam) {
	conn := x.wire()
	defer func() { _ = conn.Close() }()
	runtime := rt.NewRuntimeServiceClient(conn)
	first, err := runtime.ListMetricDescriptors(x.ctx(), &rt.ListMetricDescriptorsRequest{})
	if status.Code(err) == codes.Unimplemented {
		x.Skip("this engine has no metrics: ", err)
	}
	if err != nil {
		x.Fatal(err)
	}
	p := x.pod()
	x.says(p.start(p.container("wait")), "waiting")
	for _, m := range must(runtime.ListPodSandboxMetrics(x.ctx(), &rt.ListPodSandboxMetricsRequest{}))(x).PodMetrics {
		for _, one := range m.Metrics {
			if one.Timestamp < 0 || one.Timestamp > time.Now().Add(time.Minute).UnixNano() || one.Value == nil {
				x.Errorf("metric %v has no value, or one of another time", one)
			}
		}
	}
	x.equal("descriptors when asked again", must(runtime.ListMetricDescriptors(x.ctx(), &rt.ListMetricDescriptorsRequest{}))(x), first)
}

// eventStatuses: an event of a container has the status that the container then had.
func eventStatuses(x *exam) {
	ctx := x.ctx()
	stream := must(x.e.Events(ctx))(x)
	p := x.pod()
	id := p.start(p.container("wait"))
	for {
		select {
		case ev, ok := <-stream:
			if !ok {
				x.Fatal("the events ended")
			}
			if ev.ContainerId != id || ev.ContainerEventType != rt.ContainerEventType_CONTAINER_STARTED_EVENT {
				continue
			}
			for _, st := range ev.ContainersStatuses {
				if st.Id == id {
					x.equal("state", st.State, rt.ContainerState_CONTAINER_RUNNING)
					return
				}
			}
			x.Fatalf("event %v has no status of its container", ev)
		case <-ctx.Done():
			x.Fatal("no event of a start")
		}
	}
}
