package critest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// absent is what the contract says about things that are not there: an error for
// whoever asks about them, or an empty answer.
func absent(x *exam) {
	none := strings.Repeat("f", 64)
	for what, call := range map[string]func(ctx context.Context) error{
		"PodSandboxStatus": func(ctx context.Context) error {
			_, err := x.e.PodSandboxStatus(ctx, &rt.PodSandboxStatusRequest{PodSandboxId: none})
			return err
		},
		"PodSandboxStats": func(ctx context.Context) error {
			_, err := x.e.PodSandboxStats(ctx, &rt.PodSandboxStatsRequest{PodSandboxId: none})
			return err
		},
		"ContainerStatus": func(ctx context.Context) error {
			_, err := x.e.ContainerStatus(ctx, &rt.ContainerStatusRequest{ContainerId: none})
			return err
		},
		"StartContainer": func(ctx context.Context) error {
			_, err := x.e.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: none})
			return err
		},
		"ReopenContainerLog": func(ctx context.Context) error {
			_, err := x.e.ReopenContainerLog(ctx, &rt.ReopenContainerLogRequest{ContainerId: none})
			return err
		},
		"Exec": func(ctx context.Context) error {
			_, err := x.e.Exec(ctx, &rt.ExecRequest{ContainerId: none, Cmd: []string{"/probe"}, Stdout: true})
			return err
		},
		"Attach": func(ctx context.Context) error {
			_, err := x.e.Attach(ctx, &rt.AttachRequest{ContainerId: none, Stdout: true})
			return err
		},
		"PortForward": func(ctx context.Context) error {
			_, err := x.e.PortForward(ctx, &rt.PortForwardRequest{PodSandboxId: none})
			return err
		},
	} {
		x.code(what+" of nothing", call(x.ctx()), codes.NotFound)
	}
	x.equal("containers of nobody", len(must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{Id: none}}))(x).Containers), 0)
	must(x.e.UpdateRuntimeConfig(x.ctx(), &rt.UpdateRuntimeConfigRequest{RuntimeConfig: &rt.RuntimeConfig{}}))(x)
}

// settings of the runtime are there, complete, and the same when asked again.
func settings(x *exam) {
	names := map[string]bool{}
	for _, h := range must(x.e.Status(x.ctx(), &rt.StatusRequest{}))(x).RuntimeHandlers {
		if names[h.Name] {
			x.Errorf("handler %q is there twice", h.Name)
		}
		names[h.Name] = true
	}
	if len(names) > 0 && !names[""] {
		x.Error("there is no default handler")
	}
	first, err := x.e.RuntimeConfig(x.ctx(), &rt.RuntimeConfigRequest{})
	if status.Code(err) == codes.Unimplemented {
		x.Skip("the engine tells no configuration: ", err)
	}
	if err != nil {
		x.Fatal(err)
	}
	x.equal("the configuration when asked again", must(x.e.RuntimeConfig(x.ctx(), &rt.RuntimeConfigRequest{}))(x), first)
}

// podResources change with the pod, by best effort, and are told.
func podResources(x *exam) {
	p := x.pod()
	_, err := x.e.UpdatePodSandboxResources(x.ctx(), &rt.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id,
		Resources: &rt.LinuxContainerResources{MemoryLimitInBytes: 256 << 20, CpuShares: 300}})
	if status.Code(err) == codes.Unimplemented {
		x.Skip("the engine does not change pods' resources: ", err)
	}
	if err != nil {
		x.Fatal(err)
	}
	id := p.start(p.container("wait"))
	x.says(id, "waiting")
	_, err = x.e.UpdatePodSandboxResources(x.ctx(), &rt.UpdatePodSandboxResourcesRequest{PodSandboxId: strings.Repeat("f", 64), Resources: &rt.LinuxContainerResources{CpuShares: 2}})
	x.code("resources of no pod", err, codes.NotFound)
}

// mountSentences: a symbolic link of the host is followed, and what is not there is
// not mounted.
func mountSentences(x *exam) {
	p := x.pod()
	dir := x.TempDir()
	for name, text := range map[string]string{"real/file": "behind the link"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)); err != nil {
			x.Fatal(err)
		}
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		x.Fatal(err)
	}
	c := p.container("cat", "/data/file")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: filepath.Join(dir, "link")}}
	out, _ := p.output(c)
	x.equal("through a link", out, "behind the link")
	refused := func(what string, m *rt.Mount) {
		x.Helper()
		c := p.container("wait")
		c.Mounts = []*rt.Mount{m}
		made, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		if err != nil {
			return
		}
		if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: made.ContainerId}); err == nil {
			x.Errorf("a container runs with %s", what)
		}
	}
	if _, features := x.features(); features.GetRecursiveReadOnlyMounts() {
		refused("a recursively read-only mount that is writable", &rt.Mount{ContainerPath: "/data", HostPath: dir, RecursiveReadOnly: true})
		refused("a recursively read-only mount that is shared", &rt.Mount{ContainerPath: "/data", HostPath: dir, Readonly: true, RecursiveReadOnly: true,
			Propagation: rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER})
	}
	refused("a mount with a host path and an image", &rt.Mount{ContainerPath: "/data", HostPath: dir, Image: &rt.ImageSpec{Image: x.Image}})
}

// deviceSentences: a device of the host by its path, with what may be done to it, and
// a CDI device that nobody has.
func deviceSentences(x *exam) {
	p := x.pod()
	c := p.container("cat", "/dev/clone")
	c.Devices = []*rt.Device{{ContainerPath: "/dev/clone", HostPath: "/dev/null", Permissions: "r"}}
	out, st := p.output(c)
	x.equal("a device", out+st.Reason, "Completed")
	c = p.container("wait")
	c.CDIDevices = []*rt.CDIDevice{{Name: "exam.test/none=0"}}
	if _, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}); err == nil {
		x.Error("a container was made with a CDI device that nobody has")
	}
}

// wire is a connection of its own to the engine's socket, for what only the wire has.
func (x *exam) wire() *grpc.ClientConn {
	if x.Socket == "" {
		x.Skip("not over a socket")
	}
	conn, err := grpc.NewClient("unix://"+x.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		x.Fatal(err)
	}
	return conn
}

// streamed is the same lists in pieces, over the wire: each item once, and an end.
func streamed(x *exam) {
	conn := x.wire()
	defer func() { _ = conn.Close() }()
	runtime, ids := rt.NewRuntimeServiceClient(conn), []string{}
	p := x.pod()
	for range 3 {
		ids = append(ids, p.create(p.container("wait")))
	}
	stream := must(runtime.StreamContainers(x.ctx(), &rt.StreamContainersRequest{Filter: &rt.ContainerFilter{PodSandboxId: p.id}}))(x)
	var got []string
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if status.Code(err) == codes.Unimplemented {
			x.Skip("the engine does not stream lists: ", err)
		}
		if err != nil {
			x.Fatal(err)
		}
		if len(m.Containers) == 0 {
			x.Error("a piece has no item")
		}
		for _, c := range m.Containers {
			got = append(got, c.Id)
		}
	}
	slices.Sort(got)
	slices.Sort(ids)
	x.equal("streamed containers", got, ids)
	pods := must(runtime.StreamPodSandboxes(x.ctx(), &rt.StreamPodSandboxesRequest{Filter: &rt.PodSandboxFilter{Id: p.id}}))(x)
	x.equal("streamed sandboxes", len(must(pods.Recv())(x).PodSandboxes), 1)
	if _, err := runtime.CheckpointContainer(x.ctx(), &rt.CheckpointContainerRequest{ContainerId: strings.Repeat("f", 64)}); err == nil {
		x.Error("a container that is not there was checkpointed")
	}
}
