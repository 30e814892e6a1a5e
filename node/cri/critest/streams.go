package critest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	clientexec "k8s.io/client-go/util/exec"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func sharedNamespaces(x *exam) {
	p := x.pod()
	server := p.start(p.container("serve", "9000"))
	x.says(server, "serving")
	got, _ := p.output(p.container("get", "127.0.0.1:9000"))
	x.equal("a container of the same pod by loopback", got, "hello from "+p.config.Hostname)
	p.output(p.container("write", "/dev/shm/shared", "between containers"))
	got, _ = p.output(p.container("cat", "/dev/shm/shared"))
	x.equal("shared memory", got, "between containers")
	got, _ = p.output(p.container("pid", "then", "processes"))
	x.equal("a container by itself", got, "1\n1")

	target := p.container("wait")
	target.Linux.SecurityContext.NamespaceOptions = &rt.NamespaceOption{Pid: rt.NamespaceMode_TARGET, TargetId: server}
	id := p.start(target)
	x.equal("in the pid namespace of another container", processes(x, id), processes(x, server))

	shared := x.pod(func(c *rt.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = rt.NamespaceMode_POD })
	shared.start(shared.container("wait"))
	id = shared.start(shared.container("wait"))
	if out, _ := x.run(id, "pid"); out == "1" {
		x.Error("a container of a shared pid namespace is pid 1")
	}
	if n := processes(x, id); n < "3" {
		x.Errorf("%s processes in a shared pid namespace with two containers and an exec", n)
	}
}

// userNamespace: root in the pod is nobody on the host, and the pod's volumes
// and files are root's all the same.
func userNamespace(x *exam) {
	if _, features := x.features(); !features.GetUserNamespaces() {
		x.Skip("the engine has no user namespaces")
	}
	const first, size = 300000, 65536
	maps := []*rt.IDMapping{{HostId: first, ContainerId: 0, Length: size}}
	p := x.pod(func(c *rt.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: maps, Gids: maps}
	})
	dir := x.TempDir()
	c := p.container("write", "/data/file", "x", "then", "cat", "/proc/self/uid_map", "then", "write", "/etc/hosts", "mine", "then", "wait")
	c.Mounts = []*rt.Mount{{ContainerPath: "/data", HostPath: dir, UidMappings: maps, GidMappings: maps}}
	id := p.start(c)
	x.says(id, "waiting")
	x.equal("map", strings.Fields(x.log(x.status(id).LogPath))[:3], []int{0, first, size})
	st := must(os.Stat(filepath.Join(dir, "file")))(x)
	x.equal("owner of a volume's file", st.Sys().(*syscall.Stat_t).Uid, 0)
	out, _ := x.run(id, "id")
	x.equal("an exec's user", out, "0 0 [0]")
}

func processes(x *exam, id string) string {
	x.Helper()
	out, _ := x.run(id, "processes")
	return out
}

func execSync(x *exam) {
	p := x.pod()
	c := p.container("wait")
	c.Envs = []*rt.KeyValue{{Key: "FROM", Value: []byte("pod")}}
	c.Linux.SecurityContext.RunAsUser = &rt.Int64Value{Value: 33}
	id := p.start(c)
	for _, c := range []struct {
		args []string
		want string
		code int32
	}{
		{[]string{"echo", "hello"}, "hello", 0},
		{[]string{"exit", "7"}, "", 7},
		{[]string{"env", "FROM"}, "pod", 0},
		{[]string{"cwd"}, "/work", 0},
		{[]string{"id"}, "33 34 [34 44]", 0},
		{[]string{"status", "Seccomp"}, "2", 0},
		{[]string{"complain", "aloud"}, "aloud", 0},
	} {
		out, code := x.run(id, c.args...)
		x.equal(fmt.Sprint(c.args), fmt.Sprint(out, " ", code), fmt.Sprint(c.want, " ", c.code))
	}
	began := time.Now()
	_, err := x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "stubborn"}, Timeout: 1})
	x.code("a command that does not end", err, codes.DeadlineExceeded)
	if took := time.Since(began); took > callTime/2 {
		x.Errorf("its time was over after %v, want about one second", took)
	}
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id}))(x)
	if _, err := x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "echo"}}); err == nil {
		x.Error("a command ran in a stopped container")
	}
	_, err = x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: strings.Repeat("f", 64), Cmd: []string{"/probe", "echo"}})
	x.code("an unknown container", err, codes.NotFound)
}

// execOutput: what is printed without an end is cut, not refused.
func execOutput(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	const limit = 16 << 20
	r := must(x.e.ExecSync(x.ctx(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "spam", fmt.Sprint(limit + 1000)}}))(x)
	x.equal("length of endless output", len(r.Stdout), limit)
}

// join connects streams to the URL of an exec or attach.
func (x *exam) join(address string, o remotecommand.StreamOptions) error {
	x.Helper()
	u := must(url.Parse(address))(x)
	remote := must(remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u))(x)
	return remote.StreamWithContext(x.ctx(), o)
}

func execStreams(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	request := func(tty bool, args ...string) string {
		x.Helper()
		r := &rt.ExecRequest{ContainerId: id, Cmd: append([]string{"/probe"}, args...), Stdin: true, Stdout: true, Stderr: !tty, Tty: tty}
		return must(x.e.Exec(x.ctx(), r))(x).Url
	}
	var out, errOut bytes.Buffer
	streams := remotecommand.StreamOptions{Stdin: strings.NewReader("through and back"), Stdout: &out, Stderr: &errOut}
	address := request(false, "copy")
	if err := x.join(address, streams); err != nil {
		x.Error(err)
	}
	x.equal("output", out.String(), "through and back")
	if err := x.join(address, streams); err == nil {
		x.Error("a URL worked twice")
	}
	out.Reset()
	streams.Stdin = strings.NewReader("")
	err := x.join(request(false, "complain", "aloud", "then", "exit", "9"), streams)
	var exit clientexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 9 {
		x.Errorf("exit: got %v, want exit code 9", err)
	}
	x.equal("complaint", errOut.String(), "aloud\n")

	// A terminal: what is typed ends with ^D, and lines end with both characters.
	out.Reset()
	if err := x.join(request(true, "copy"), remotecommand.StreamOptions{Stdin: strings.NewReader("typed\n\x04"), Stdout: &out, Tty: true}); err != nil {
		x.Error(err)
	}
	if !strings.Contains(out.String(), "typed\r\n") {
		x.Errorf("terminal shows %q, want what was typed", out.String())
	}
}

func attachStreams(x *exam) {
	p := x.pod()
	c := p.container("copy")
	c.Stdin, c.StdinOnce = true, true
	id := p.start(c)
	address := must(x.e.Attach(x.ctx(), &rt.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Stderr: true}))(x).Url
	var out bytes.Buffer
	if err := x.join(address, remotecommand.StreamOptions{Stdin: strings.NewReader("said to the container\n"), Stdout: &out, Stderr: io.Discard}); err != nil {
		x.Error(err)
	}
	x.equal("output", out.String(), "said to the container\n")
	x.equal("exit code", x.ended(id).ExitCode, 0)
	x.equal("log", x.log(x.status(id).LogPath), "said to the container\n")
}

func portForward(x *exam) {
	p := x.pod()
	id := p.start(p.container("serve", "8080"))
	x.says(id, "serving")
	address := must(x.e.PortForward(x.ctx(), &rt.PortForwardRequest{PodSandboxId: p.id, Port: []int32{8080}}))(x).Url
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		x.Fatal(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, must(url.Parse(address))(x))
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.New(dialer, []string{":8080"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		x.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	defer func() {
		close(stop)
		if err := <-ended; err != nil {
			x.Error(err)
		}
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		x.Fatalf("forwarding ended: %v", err)
	}
	ports := must(forwarder.GetPorts())(x)
	for range 2 {
		c, err := (&net.Dialer{}).DialContext(x.ctx(), "tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
		if err != nil {
			x.Fatal(err)
		}
		got := must(io.ReadAll(c))(x)
		c.Close()
		x.equal("answer", string(got), "hello from "+p.config.Hostname+"\n")
	}
}

func events(x *exam) {
	ctx, cancel := context.WithCancel(x.ctx())
	defer cancel()
	stream := must(x.e.Events(ctx))(x)
	p := x.pod()
	id := p.start(p.container("wait"))
	x.says(id, "waiting")
	must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id, Timeout: 10}))(x)
	next := func(of string) string {
		for {
			select {
			case ev, ok := <-stream:
				if !ok {
					x.Fatal("the events ended")
				}
				if ev.ContainerId != of {
					continue
				}
				if ev.PodSandboxStatus.GetId() != p.id {
					x.Errorf("event %v has no status of its sandbox", ev)
				}
				if ev.CreatedAt <= 0 {
					x.Errorf("event %v has no time", ev)
				}
				return ev.ContainerEventType.String()
			case <-x.ctx().Done():
				x.Fatalf("no further event of %s", of)
			}
		}
	}
	for _, want := range []rt.ContainerEventType{rt.ContainerEventType_CONTAINER_CREATED_EVENT, rt.ContainerEventType_CONTAINER_STARTED_EVENT} {
		x.equal("sandbox event", next(p.id), want)
	}
	for _, want := range []rt.ContainerEventType{rt.ContainerEventType_CONTAINER_CREATED_EVENT, rt.ContainerEventType_CONTAINER_STARTED_EVENT, rt.ContainerEventType_CONTAINER_STOPPED_EVENT} {
		x.equal("container event", next(id), want)
	}
	must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: p.id}))(x)
	x.equal("event of the removed container", next(id), rt.ContainerEventType_CONTAINER_DELETED_EVENT)
	x.equal("event of the removed sandbox", next(p.id), rt.ContainerEventType_CONTAINER_DELETED_EVENT)
	cancel()
	for range stream { // it is closed when its context ends
	}
}

func stats(x *exam) {
	p := x.pod()
	id := p.start(p.container("write", "/tmp/file", strings.Repeat("x", 10000), "then", "wait"))
	x.says(id, "waiting")
	var st *rt.ContainerStats
	x.until("the writable layer is measured", func() bool { // some engines do so now and then
		st = must(x.e.ContainerStats(x.ctx(), &rt.ContainerStatsRequest{ContainerId: id}))(x).Stats
		return st.WritableLayer.GetUsedBytes().GetValue() > 0
	})
	x.equal("id", st.Attributes.Id, id)
	for what, v := range map[string]*rt.UInt64Value{"cpu": st.Cpu.GetUsageCoreNanoSeconds(), "working set": st.Memory.GetWorkingSetBytes(),
		"memory": st.Memory.GetUsageBytes(), "disk": st.WritableLayer.GetUsedBytes()} {
		if v.GetValue() == 0 {
			x.Errorf("%s is zero in %v", what, st)
		}
	}
	list := must(x.e.ListContainerStats(x.ctx(), &rt.ListContainerStatsRequest{Filter: &rt.ContainerStatsFilter{PodSandboxId: p.id}}))(x)
	x.equal("running containers with stats", len(list.Stats), 1)
	pod := must(x.e.PodSandboxStats(x.ctx(), &rt.PodSandboxStatsRequest{PodSandboxId: p.id}))(x).Stats
	if pod.Linux.Cpu.GetUsageCoreNanoSeconds().GetValue() == 0 || len(pod.Linux.Containers) != 1 {
		x.Errorf("stats of the pod %v are not its container's", pod)
	}
	pods := must(x.e.ListPodSandboxStats(x.ctx(), &rt.ListPodSandboxStatsRequest{Filter: &rt.PodSandboxStatsFilter{Id: p.id}}))(x)
	x.equal("pods with stats", len(pods.Stats), 1)
	_, err := x.e.ContainerStats(x.ctx(), &rt.ContainerStatsRequest{ContainerId: strings.Repeat("f", 64)})
	x.code("an unknown container", err, codes.NotFound)
}

func images(x *exam) {
	img := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: x.Image}, Verbose: true}))(x)
	if img.Image.GetId() == "" || img.Image.GetSize() == 0 || len(img.Info) == 0 {
		x.Errorf("status %v is not complete", img)
	}
	none := must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: "registry.invalid/no/such:image"}}))(x)
	if none.Image != nil {
		x.Errorf("an image that is not here has a status: %v", none)
	}
	found := false
	for _, i := range must(x.e.ListImages(x.ctx(), &rt.ListImagesRequest{}))(x).Images {
		found = found || i.Id == img.Image.GetId()
	}
	x.equal("the image is in the list", found, true)
	one := must(x.e.ListImages(x.ctx(), &rt.ListImagesRequest{Filter: &rt.ImageFilter{Image: &rt.ImageSpec{Image: x.Image}}}))(x)
	x.equal("images of that name", len(one.Images), 1)
	must(x.e.RemoveImage(x.ctx(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: "registry.invalid/no/such:image"}}))(x)
	var fs *rt.ImageFsInfoResponse
	x.until("the images are measured", func() bool {
		fs = must(x.e.ImageFsInfo(x.ctx(), &rt.ImageFsInfoRequest{}))(x)
		return len(fs.ImageFilesystems) > 0 && fs.ImageFilesystems[0].GetUsedBytes().GetValue() > 0
	})
	if len(fs.ImageFilesystems) == 0 || fs.ImageFilesystems[0].GetUsedBytes().GetValue() == 0 || fs.ImageFilesystems[0].GetFsId().GetMountpoint() == "" {
		x.Errorf("image file system %v is not complete", fs)
	}
}
