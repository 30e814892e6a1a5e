package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri/critest"
)

// installed are the other runtimes of this machine, under their names.
func installed() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"crun", "runc"} {
		if path, err := exec.LookPath(name); err == nil {
			out[name] = path
		}
	}
	return out
}

// The exam is passed by every runtime that is there.
func TestForeignRuntimes(t *testing.T) {
	runtimes := installed()
	if len(runtimes) == 0 {
		t.Skip("neither crun nor runc is installed")
	}
	for name := range runtimes {
		t.Run(name, func(t *testing.T) {
			if b, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers"); name == "crun" && err == nil && strings.TrimSpace(string(b)) != "" {
				t.Skip("crun does not run where some cgroup controllers are in the unified hierarchy and some are not")
			}
			n := newNode(t)
			critest.Run(t, critest.Subject{Engine: n.engine, Image: examImage, Handler: name, Cgroup: n.cgroup + "/pods", Known: map[string]string{
				"mount propagation": "what a container mounts stays in the mount namespace that its runtime is started in"}})
		})
	}
}

// pod runs a sandbox with one container and returns the container's ID.
func (n *node) pod(config *rt.ContainerConfig) (string, error) {
	n.t.Helper()
	box := &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: config.Metadata.Name, Namespace: "test", Uid: config.Metadata.Name},
		Hostname: "pod", LogDirectory: filepath.Join(n.dir, "logs")}
	ctx := n.t.Context()
	made, err := n.engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: box})
	n.must(err)
	config.Image, config.LogPath = &rt.ImageSpec{Image: examImage}, config.Metadata.Name+".log"
	c, err := n.engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: made.PodSandboxId, Config: config, SandboxConfig: box})
	if err != nil {
		return "", err
	}
	_, err = n.engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: c.ContainerId})
	return c.ContainerId, err
}

func (n *node) probe(id string, args ...string) string {
	n.t.Helper()
	r, err := n.engine.ExecSync(n.t.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: append([]string{"/probe"}, args...), Timeout: 10})
	n.must(err)
	return strings.TrimSpace(string(r.Stdout) + string(r.Stderr))
}

// A device that a vendor's file describes is in the container: its node, mount,
// environment and hooks.
func TestCDI(t *testing.T) {
	n := newNode(t)
	dir := filepath.Join(n.dir, "cdi")
	n.must(os.Mkdir(dir, 0o755))
	early, late := filepath.Join(n.dir, "early"), filepath.Join(n.dir, "late")
	hook := filepath.Join(n.dir, "hook")
	// The state comes on stdin; the bundle has the specification and the root.
	n.must(os.WriteFile(hook, []byte("#!/bin/sh\nread state\ncd $(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\).*/\\1/')\n"+
		"grep -q '\"path\":\"rootfs\"' config.json && echo \"$state\" > \"$1\"\n[ -z \"$2\" ] || echo linked > \"rootfs/$2\"\n"), 0o755))
	n.must(os.WriteFile(filepath.Join(dir, "vendor.json"), []byte(`{"cdiVersion":"0.8.0","kind":"vendor.io/null","devices":[{"name":"0","containerEdits":{
		"env":["DEVICE=zero"],
		"deviceNodes":[{"path":"/dev/clone","hostPath":"/dev/null","permissions":"rw"}],
		"mounts":[{"hostPath":"`+hook+`","containerPath":"/opt/vendor/hook","options":["ro","bind"]}],
		"hooks":[{"hookName":"createRuntime","path":"`+hook+`","args":["hook","`+early+`"]},
			{"hookName":"createContainer","path":"`+hook+`","args":["hook","/dev/null","linked"]},
			{"hookName":"poststop","path":"`+hook+`","args":["hook","`+late+`"]}]}}]}`), 0o644))
	id, err := n.pod(&rt.ContainerConfig{Metadata: &rt.ContainerMetadata{Name: "c"}, Args: []string{"wait"}, CDIDevices: []*rt.CDIDevice{{Name: "vendor.io/null=0"}}})
	n.must(err)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"env", "DEVICE"}, "zero"},
		{[]string{"cat", "/dev/clone"}, ""},
		{[]string{"cat", "/linked"}, "linked"},
		{[]string{"cat", "/opt/vendor/hook"}, "#!/bin/sh"},
	} {
		if got := n.probe(id, c.args...); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%v: got %q, want %q", c.args, got, c.want)
		}
	}
	if env := n.probe(id, "cat", "/proc/1/environ"); strings.Index(env, "DEVICE=zero") > strings.Index(env, "HOME=/") {
		t.Errorf("a device's variables do not come before HOME, which upstream's suite looks for in this order: %q", env)
	}
	b, err := os.ReadFile(early)
	if err != nil || !strings.Contains(string(b), `"status":"creating"`) || !strings.Contains(string(b), id) || strings.Contains(string(b), `"pid":0`) {
		t.Errorf("the state of a hook: %q, %v", b, err)
	}
	_, err = n.engine.RemoveContainer(t.Context(), &rt.RemoveContainerRequest{ContainerId: id})
	n.must(err)
	if b, err := os.ReadFile(late); err == nil && !strings.Contains(string(b), `"status":"stopped"`) {
		t.Errorf("the state of a late hook: %q", b)
	}
	for name, want := range map[string]string{"vendor.io/null=1": "unresolvable CDI devices vendor.io/null=1", "nonsense": "invalid CDI device name"} {
		_, err := n.pod(&rt.ContainerConfig{Metadata: &rt.ContainerMetadata{Name: "c-" + want[:3]}, CDIDevices: []*rt.CDIDevice{{Name: name}}})
		if err == nil || !strings.Contains(err.Error(), "CDI device injection failed: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A pod of a RuntimeClass that names runc, as most of the world's do, is run by the
// engine itself, unless another program is configured under that name.
func TestUsualHandler(t *testing.T) {
	own := &Engine{}
	foreign := &Engine{cfg: Config{Runtimes: map[string]string{usualHandler: "/nothing"}}}
	for _, c := range []struct {
		engine *Engine
		userNS bool
	}{{own, true}, {foreign, false}} {
		box := &rt.PodSandboxConfig{Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{NamespaceOptions: &rt.NamespaceOption{
			UsernsOptions: &rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: []*rt.IDMapping{{HostId: 1 << 16, Length: 1 << 16}}, Gids: []*rt.IDMapping{{HostId: 1 << 16, Length: 1 << 16}}}}}}}
		err := c.engine.checkHandler(&rt.RunPodSandboxRequest{RuntimeHandler: usualHandler, Config: box})
		if (err == nil) != c.userNS {
			t.Errorf("a sandbox with users of its own: %v", err)
		}
		var found []*rt.RuntimeHandler
		for _, h := range c.engine.handlers() {
			if h.Name == usualHandler {
				found = append(found, h)
			}
		}
		if len(found) != 1 || found[0].Features.UserNamespaces != c.userNS {
			t.Errorf("handlers: %v", found)
		}
	}
	n := newNode(t)
	delete(n.engine.cfg.Runtimes, usualHandler)
	box := &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: "p", Namespace: "test", Uid: "u"}, Hostname: "pod", LogDirectory: filepath.Join(n.dir, "logs")}
	made, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: box, RuntimeHandler: usualHandler})
	n.must(err)
	got, err := n.engine.PodSandboxStatus(t.Context(), &rt.PodSandboxStatusRequest{PodSandboxId: made.PodSandboxId})
	n.must(err)
	if got.Status.RuntimeHandler != usualHandler {
		t.Errorf("the sandbox's handler is %q", got.Status.RuntimeHandler)
	}
}
