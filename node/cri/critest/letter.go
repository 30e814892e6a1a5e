package critest

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is here holds the engine to single sentences of the contract's comments.

// statusesByTheLetter: extra information is JSON, and there for whoever asks for it
// only; what was configured comes back as it was; IDs of images are the same in every
// answer.
func statusesByTheLetter(x *exam) {
	p := x.pod()
	c := p.container("exit", "7")
	c.Annotations = map[string]string{"note": "untouched", "empty": "", "with a space": "ä\n"}
	id := p.create(c)
	for _, verbose := range []bool{false, true} {
		pod := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: verbose}))(x)
		ctr := must(x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id, Verbose: verbose}))(x)
		img := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: x.Image}, Verbose: verbose}))(x)
		for what, info := range map[string]map[string]string{"a sandbox": pod.Info, "a container": ctr.Info, "an image": img.Info} {
			x.equal("more is told about "+what, len(info) > 0, verbose)
			for key, text := range info {
				if !json.Valid([]byte(text)) {
					x.Errorf("%s of %s is no JSON: %.80q", key, what, text)
				}
			}
		}
	}
	st := x.status(id)
	x.equal("annotations", st.Annotations, c.Annotations)
	x.equal("finished, before its start", st.FinishedAt, 0)
	img := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: x.Image}}))(x).Image
	if st.ImageId != "" { // which came after v1 did
		x.equal("the image's ID in a container's status", st.ImageId, img.Id)
	}
	must(x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: id}))(x)
	st = x.ended(id)
	x.equal("exit code", st.ExitCode, 7)
	if st.CreatedAt <= 0 || st.StartedAt < st.CreatedAt || st.FinishedAt < st.StartedAt {
		x.Errorf("created at %d, started at %d, finished at %d", st.CreatedAt, st.StartedAt, st.FinishedAt)
	}
	if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: id}); err == nil {
		x.Error("a container that has ended was started again")
	}
}

// imageNames: a kubelet asks for a container's image by its ID, and says beside it
// what the pod calls it. That is what a person is to read, in each answer.
func imageNames(x *exam) {
	img := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: x.Image}}))(x).Image
	p := x.pod()
	c := p.container("wait")
	c.Image = &rt.ImageSpec{Image: img.Id, UserSpecifiedImage: x.Image}
	id := p.create(c)
	st := x.status(id)
	x.equal("the image's name in a container's status", st.GetImage().GetImage(), x.Image)
	items := must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{Id: id}}))(x).Containers
	if len(items) != 1 {
		x.Fatalf("%d containers instead of one", len(items))
	}
	if st.ImageId != "" { // which came after v1 did
		x.equal("its ID", st.ImageId, img.Id)
		x.equal("the image's ID in a list", items[0].ImageId, img.Id)
	}
}

// listsByTheLetter: an item of a list has what the status has, and all conditions of
// a filter hold together.
func listsByTheLetter(x *exam) {
	p := x.pod()
	c := p.container("wait")
	id := p.create(c)
	st := x.status(id)
	items := must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{Id: id, PodSandboxId: p.id,
		LabelSelector: c.Labels, State: &rt.ContainerStateValue{State: rt.ContainerState_CONTAINER_CREATED}}}))(x).Containers
	if len(items) != 1 {
		x.Fatalf("%d containers instead of one", len(items))
	}
	item := items[0]
	x.equal("sandbox", item.PodSandboxId, p.id)
	x.equal("metadata", item.Metadata, c.Metadata)
	x.equal("labels", item.Labels, c.Labels)
	x.equal("annotations", item.Annotations, c.Annotations)
	x.equal("created at", item.CreatedAt, st.CreatedAt)
	x.equal("image", item.ImageRef, st.ImageRef)
	x.equal("image's name", item.GetImage().GetImage(), st.GetImage().GetImage())
	x.equal("image's ID", item.ImageId, st.ImageId)
	x.equal("containers with a label of another value", len(must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{
		PodSandboxId: p.id, LabelSelector: map[string]string{"name": c.Labels["name"], "other": ""}}}))(x).Containers), 0)

	pods := must(x.e.ListPodSandbox(x.ctx(), &rt.ListPodSandboxRequest{Filter: &rt.PodSandboxFilter{Id: p.id, LabelSelector: p.config.Labels}}))(x).Items
	if len(pods) != 1 {
		x.Fatalf("%d sandboxes instead of one", len(pods))
	}
	pod := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id}))(x).Status
	x.equal("the pod's metadata", pods[0].Metadata, p.config.Metadata)
	x.equal("its annotations", pods[0].Annotations, p.config.Annotations)
	x.equal("its creation", pods[0].CreatedAt, pod.CreatedAt)
	x.equal("its handler", pods[0].RuntimeHandler, pod.RuntimeHandler)
}

// sandboxByTheLetter: a port of the host that is 0 is none, and a group to run as
// takes a user.
func sandboxByTheLetter(x *exam) {
	p := x.pod(func(c *rt.PodSandboxConfig) {
		c.PortMappings = []*rt.PortMapping{{ContainerPort: 80, HostPort: 0}, {ContainerPort: 80, HostPort: 0, Protocol: rt.Protocol_UDP}}
	})
	x.equal("state with ports of no host", must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id}))(x).Status.State, rt.PodSandboxState_SANDBOX_READY)
	c := p.container("wait")
	c.Linux.SecurityContext.RunAsGroup = &rt.Int64Value{Value: 34}
	if _, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}); err == nil {
		x.Error("a container has a group to run as and no user")
	}
}

// streamsByTheLetter: one of the streams must be asked for, and a terminal has no
// standard error of its own.
func streamsByTheLetter(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	cmd := []string{"/probe", "echo"}
	for what, r := range map[string]*rt.ExecRequest{
		"no stream":                         {ContainerId: id, Cmd: cmd},
		"a terminal and its standard error": {ContainerId: id, Cmd: cmd, Tty: true, Stdout: true, Stderr: true},
	} {
		if _, err := x.e.Exec(x.ctx(), r); err == nil {
			x.Errorf("exec with %s was accepted", what)
		}
	}
	for what, r := range map[string]*rt.AttachRequest{
		"no stream":                         {ContainerId: id},
		"a terminal and its standard error": {ContainerId: id, Tty: true, Stdout: true, Stderr: true},
	} {
		if _, err := x.e.Attach(x.ctx(), r); err == nil {
			x.Errorf("attach with %s was accepted", what)
		}
	}
}

// mountOptions are those of a bind mount that the engine says it has.
func mountOptions(x *exam) {
	if features, _ := x.features(); !features.GetMountOptions() {
		x.Skip("the engine has no mount options")
	}
	p := x.pod()
	c := p.container("cat", "/proc/self/mounts")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: x.TempDir(), MountOptions: []string{"noexec", "nosuid", "nodev"}}}
	out, _ := p.output(c)
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/data" {
			continue
		}
		for _, want := range c.Mounts[0].MountOptions {
			if !strings.Contains(","+f[3]+",", ","+want+",") {
				x.Errorf("mounted with %s, without %s", f[3], want)
			}
		}
		return
	}
	x.Errorf("nothing is mounted: %s", out)
}

// imageParts: a part of an image is mounted, one that is not there is an error, and an
// image is read-only whatever the mount says.
func imageParts(x *exam) {
	p := x.pod()
	c := p.container("cat", "/data/group", "then", "write", "/data/group", "x")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", Image: &rt.ImageSpec{Image: x.Image}, ImageSubPath: "etc"}}
	out, st := p.output(c)
	if !strings.Contains(out, "root:x:0:") || st.ExitCode != 3 {
		x.Errorf("a part of an image shows %q, and writing to it ends with %d", out, st.ExitCode)
	}
	for _, part := range []string{"none", "../etc", "etc/none"} {
		c := p.container("wait")
		c.Mounts = []*rt.Mount{{ContainerPath: "/data", Image: &rt.ImageSpec{Image: x.Image}, ImageSubPath: part}}
		if _, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}); err == nil {
			x.Errorf("part %q of an image was mounted", part)
		}
	}
}

// privilegedByTheLetter: every capability, and kernel file systems that can be written.
func privilegedByTheLetter(x *exam) {
	p := x.pod(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	c := p.container("status", "CapEff", "then", "status", "CapBnd", "then", "cat", "/proc/self/mounts")
	c.Linux.SecurityContext.Privileged = true
	c.Linux.SecurityContext.MaskedPaths, c.Linux.SecurityContext.ReadonlyPaths = nil, nil
	out, _ := p.output(c)
	lines := strings.Split(out, "\n")
	own := must(os.ReadFile("/proc/self/status"))(x)
	for i, name := range []string{"CapEff", "CapBnd"} {
		_, rest, _ := strings.Cut(string(own), name+":")
		value, _, _ := strings.Cut(rest, "\n")
		x.equal(name, lines[min(i, len(lines)-1)], strings.TrimSpace(value))
	}
	for _, line := range lines[min(2, len(lines)):] {
		if f := strings.Fields(line); len(f) > 3 && (f[2] == "sysfs" || f[2] == "proc") && strings.HasPrefix(f[3], "ro") {
			x.Errorf("read-only for a privileged container: %s", line)
		}
	}
}

// restStreamed are the other lists in pieces: each item once, and an end.
func restStreamed(x *exam) {
	conn := x.wire()
	defer func() { _ = conn.Close() }()
	p := x.pod()
	id := p.start(p.container("wait"))
	runtime, images := rt.NewRuntimeServiceClient(conn), rt.NewImageServiceClient(conn)

	pictures := must(images.StreamImages(x.ctx(), &rt.StreamImagesRequest{}))(x)
	img := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: x.Image}}))(x).Image
	x.equal("the exam's image in a stream", pieces(x, pictures, func(m *rt.StreamImagesResponse) []string {
		return named(m.Images, func(i *rt.Image) string { return i.Id })
	})[img.Id], 1)
	stats := must(runtime.StreamContainerStats(x.ctx(), &rt.StreamContainerStatsRequest{Filter: &rt.ContainerStatsFilter{PodSandboxId: p.id}}))(x)
	x.equal("streamed statistics", pieces(x, stats, func(m *rt.StreamContainerStatsResponse) []string {
		return named(m.ContainerStats, func(s *rt.ContainerStats) string { return s.GetAttributes().GetId() })
	}), map[string]int{id: 1})
	pods := must(runtime.StreamPodSandboxStats(x.ctx(), &rt.StreamPodSandboxStatsRequest{Filter: &rt.PodSandboxStatsFilter{Id: p.id}}))(x)
	x.equal("streamed statistics of pods", pieces(x, pods, func(m *rt.StreamPodSandboxStatsResponse) []string {
		return named(m.PodSandboxStats, func(s *rt.PodSandboxStats) string { return s.GetAttributes().GetId() })
	}), map[string]int{p.id: 1})
	measured := must(runtime.StreamPodSandboxMetrics(x.ctx(), &rt.StreamPodSandboxMetricsRequest{}))(x)
	x.equal("streamed metrics of the pod", pieces(x, measured, func(m *rt.StreamPodSandboxMetricsResponse) []string {
		return named(m.PodSandboxMetrics, func(s *rt.PodSandboxMetrics) string { return s.PodSandboxId })
	})[p.id], 1)
}

func named[T any](items []T, name func(T) string) []string {
	var out []string
	for _, i := range items {
		out = append(out, name(i))
	}
	return out
}

// pieces counts the items of a stream by their names, until its end.
func pieces[T any](x *exam, stream interface{ Recv() (*T, error) }, items func(*T) []string) map[string]int {
	x.Helper()
	count := map[string]int{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return count
		}
		if status.Code(err) == codes.Unimplemented {
			x.Skip("the engine does not stream lists: ", err)
		}
		if err != nil {
			x.Fatal(err)
		}
		got := items(m)
		if len(got) == 0 {
			x.Error("a piece has no item")
		}
		for _, name := range got {
			count[name]++
		}
	}
}

// checkpoints: a running container is written down whole or not at all, and runs on. An
// engine that cannot says so, and what it lacks.
func checkpoints(x *exam) {
	conn := x.wire()
	defer func() { _ = conn.Close() }()
	runtime, none, dir := rt.NewRuntimeServiceClient(conn), strings.Repeat("f", 64), x.TempDir()
	_, one := runtime.CheckpointContainer(x.ctx(), &rt.CheckpointContainerRequest{ContainerId: none, Location: filepath.Join(dir, "none.tar")})
	_, all := runtime.CheckpointPod(x.ctx(), &rt.CheckpointPodRequest{PodSandboxId: none})
	_, back := runtime.RestorePod(x.ctx(), &rt.RestorePodRequest{})
	const nobody = "a container that is not there"
	for what, err := range map[string]error{nobody: one, "a pod that is not there": all, "nothing": back} {
		if err == nil {
			x.Errorf("checkpoint of %s succeeded", what)
		}
		if x.Plain && what != nobody && (status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "CRIU")) {
			x.Errorf("checkpoint of %s: %v does not name what is missing", what, err)
		}
	}
	p := x.pod()
	id := p.start(p.container("wait"))
	to := filepath.Join(dir, "checkpoint.tar")
	_, err := runtime.CheckpointContainer(x.ctx(), &rt.CheckpointContainerRequest{ContainerId: id, Location: to})
	left := must(os.ReadDir(dir))(x)
	switch {
	case err != nil && len(left) > 0:
		x.Errorf("a checkpoint that failed (%v) has left %v", err, left)
	case err != nil && x.Plain:
		if code := status.Code(err); code == codes.Unimplemented && !strings.Contains(err.Error(), "criu") {
			x.Errorf("%v does not name what is missing", err)
		}
		x.code("a location that is no absolute path", second(runtime.CheckpointContainer(x.ctx(), &rt.CheckpointContainerRequest{ContainerId: id, Location: "x.tar"})), codes.InvalidArgument)
	case err == nil:
		x.archive(to)
	}
	if got := x.status(id).State; got != rt.ContainerState_CONTAINER_RUNNING {
		x.Errorf("after a checkpoint (%v) the container is %v", err, got)
	}
	if out, code := x.run(id, "echo", "still here"); code != 0 || !strings.Contains(out, "still here") {
		x.Errorf("after a checkpoint (%v) the container answers %q, %d", err, out, code)
	}
}

func second[T any](_ T, err error) error { return err }

// archive looks at a checkpoint: it has all memory of the container, and is nobody's else.
func (x *exam) archive(path string) {
	x.Helper()
	f := must(os.Open(path))(x)
	defer func() { _ = f.Close() }()
	if mode := must(f.Stat())(x).Mode(); mode != 0o600 {
		x.Errorf("the archive has mode %v", mode)
	}
	have := map[string]bool{}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			x.Fatal(err)
		}
		have[strings.TrimPrefix(h.Name, "./")] = true
	}
	for _, name := range []string{"config.dump", "spec.dump", "checkpoint/inventory.img"} {
		if !have[name] {
			x.Errorf("the archive has no %q", name)
		}
	}
}
