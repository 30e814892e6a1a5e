package critest

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (x *exam) code(what string, err error, want codes.Code) {
	x.Helper()
	if got := status.Code(err); got != want {
		x.Errorf("%s: got %v (%v), want %v", what, got, err, want)
	}
}

func identity(x *exam) {
	v := must(x.e.Version(x.ctx(), &rt.VersionRequest{}))(x)
	if v.RuntimeName == "" || v.RuntimeVersion == "" || v.RuntimeApiVersion != "v1" {
		x.Errorf("version %v is not complete", v)
	}
	conditions := map[string]bool{}
	for _, c := range must(x.e.Status(x.ctx(), &rt.StatusRequest{Verbose: true}))(x).Status.Conditions {
		conditions[c.Type] = c.Status
	}
	x.equal("conditions", conditions, map[string]bool{rt.RuntimeReady: true, rt.NetworkReady: true})
}

func sandboxLife(x *exam) {
	c := x.config()
	id := x.sandbox(c)
	st := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true}))(x)
	x.equal("state", st.Status.State, rt.PodSandboxState_SANDBOX_READY)
	x.equal("metadata", st.Status.Metadata, c.Metadata)
	x.equal("labels", st.Status.Labels, c.Labels)
	x.equal("annotations", st.Status.Annotations, c.Annotations)
	if st.Status.CreatedAt <= 0 {
		x.Error("no creation time")
	}
	if _, err := netip.ParseAddr(st.Status.Network.GetIp()); err != nil {
		x.Errorf("address: %v", err)
	}
	if len(st.Info) == 0 {
		x.Error("verbose status has no info")
	}
	for range 2 { // both are idempotent
		must(x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: id}))(x)
		st = must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: id}))(x)
		x.equal("state after stop", st.Status.State, rt.PodSandboxState_SANDBOX_NOTREADY)
	}
	for range 2 {
		must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: id}))(x)
		_, err := x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: id})
		x.code("status after removal", err, codes.NotFound)
	}
	_, err := x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: id})
	x.gone(err)
	again := x.config(func(again *rt.PodSandboxConfig) { again.Metadata = c.Metadata })
	x.sandbox(again) // its name is free again
}

func sandboxLists(x *exam) {
	var ids []string
	for range 3 {
		ids = append(ids, x.sandbox(x.config()))
	}
	must(x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: ids[2]}))(x)
	ready := &rt.PodSandboxStateValue{State: rt.PodSandboxState_SANDBOX_READY}
	mine := map[string]string{"part": x.Name()}
	for what, c := range map[string]struct {
		f    *rt.PodSandboxFilter
		want []string
	}{
		"labels":           {&rt.PodSandboxFilter{LabelSelector: mine}, ids},
		"state":            {&rt.PodSandboxFilter{LabelSelector: mine, State: ready}, ids[:2]},
		"id":               {&rt.PodSandboxFilter{Id: ids[0]}, ids[:1]},
		"beginning of id":  {&rt.PodSandboxFilter{Id: ids[1][:13]}, ids[1:2]},
		"id and state":     {&rt.PodSandboxFilter{Id: ids[2], State: ready}, nil},
		"labels of nobody": {&rt.PodSandboxFilter{LabelSelector: map[string]string{"part": "none"}}, nil},
	} {
		var got []string
		for _, s := range must(x.e.ListPodSandbox(x.ctx(), &rt.ListPodSandboxRequest{Filter: c.f}))(x).Items {
			got = append(got, s.Id)
		}
		x.same(what, got, c.want)
	}
}

func sandboxRefusals(x *exam) {
	c := x.config()
	x.sandbox(c)
	_, err := x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: c})
	if err == nil {
		x.Error("two sandboxes have one name")
	}
	_, err = x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: x.config(), RuntimeHandler: "no-such-handler"})
	if err == nil {
		x.Error("an unknown runtime handler was accepted")
	}
	_, err = x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: x.config(func(c *rt.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"kernel.panic": "1"}
	})})
	if err == nil {
		x.Error("a sysctl of the whole host was accepted")
	}
}

// sandboxNetwork: a pod reaches another one by its address, and the host has
// its host ports' address left alone.
func sandboxNetwork(x *exam) {
	server, client := x.pod(), x.pod()
	id := server.start(server.container("serve", "8080"))
	x.says(id, "serving")
	ip := must(x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: server.id}))(x).Status.Network.Ip
	got, _ := client.output(client.container("get", ip+":8080"))
	x.equal("answer", got, "hello from "+server.config.Hostname)
}

// sandboxNames: what the containers of a pod take for their own name, and whom
// they ask for others'.
func sandboxNames(x *exam) {
	p := x.pod(func(c *rt.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "77"}
	})
	id := p.start(p.container("wait"))
	for _, c := range []struct{ command, arg, want string }{
		{"hostname", "", p.config.Hostname},
		{"env", "HOSTNAME", p.config.Hostname},
		{"cat", "/etc/hostname", p.config.Hostname},
		{"cat", "/etc/resolv.conf", "search exam.test\nnameserver 192.0.2.53\noptions ndots:5"},
		{"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "77"},
	} {
		got, _ := x.run(id, c.command, c.arg)
		x.equal(c.command+" "+c.arg, got, c.want)
	}
	host := x.pod(func(c *rt.PodSandboxConfig) {
		c.Hostname = ""
		c.Linux.SecurityContext.NamespaceOptions.Network = rt.NamespaceMode_NODE
	})
	id = host.start(host.container("wait"))
	got, _ := x.run(id, "netns")
	x.equal("network namespace of a host network pod", got, must(os.Readlink("/proc/thread-self/ns/net"))(x))
	got, _ = x.run(id, "hostname")
	x.equal("its name", got, must(os.Hostname())(x))
	nameless := x.pod(func(c *rt.PodSandboxConfig) { c.Hostname = "" })
	got, _ = x.run(nameless.start(nameless.container("wait")), "hostname")
	x.equal("the name of a pod that has none", got, must(os.Hostname())(x))
}

func manyAtOnce(x *exam) {
	const pods = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	addresses := map[string]bool{}
	for range pods {
		wg.Go(func() {
			p := &pod{exam: x, config: x.config()}
			r, err := x.e.RunPodSandbox(x.ctx(), &rt.RunPodSandboxRequest{Config: p.config})
			if err != nil {
				x.Error(err)
				return
			}
			p.id = r.PodSandboxId
			defer func() {
				if _, err := x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
					x.Error(err)
				}
			}()
			if err := p.oneContainer(); err != nil {
				x.Error(err)
			}
			st, err := x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id})
			if err != nil {
				x.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			addresses[st.Status.Network.Ip] = true
		})
	}
	wg.Wait()
	x.equal("different addresses", len(addresses), pods)
}

// oneContainer makes, starts and asks one; it may run on any goroutine.
func (p *pod) oneContainer() error {
	c, err := p.e.CreateContainer(p.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: p.container("wait"), SandboxConfig: p.config})
	if err != nil {
		return err
	}
	if _, err := p.e.StartContainer(p.ctx(), &rt.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		return err
	}
	out, err := p.e.ExecSync(p.ctx(), &rt.ExecSyncRequest{ContainerId: c.ContainerId, Cmd: []string{"/probe", "hostname"}})
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(out.Stdout)); got != p.config.Hostname {
		return fmt.Errorf("hostname %q, want %q", got, p.config.Hostname)
	}
	return nil
}

func removalByForce(x *exam) {
	p := x.pod()
	id := p.start(p.container("stubborn"))
	must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: p.id}))(x)
	_, err := x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id})
	x.code("a container of a removed sandbox", err, codes.NotFound)

	p = x.pod()
	id = p.start(p.container("stubborn"))
	must(x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: p.id}))(x)
	x.equal("a container of a stopped sandbox", x.status(id).State, rt.ContainerState_CONTAINER_EXITED)
	_, err = x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: p.container("wait"), SandboxConfig: p.config})
	if err == nil {
		x.Error("a container was made in a stopped sandbox")
	}
}
