package spec

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write what was seen to testdata")

var hostCaps = append([]string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}, defaultCapabilities...)

func input() Input {
	return Input{
		Container: &rt.ContainerConfig{Image: &rt.ImageSpec{Image: "busybox"}, Linux: &rt.LinuxContainerConfig{
			SecurityContext: &rt.LinuxContainerSecurityContext{Seccomp: &rt.SecurityProfile{}}, Resources: &rt.LinuxContainerResources{}}},
		Image:      ocispec.ImageConfig{Entrypoint: []string{"/init"}, Cmd: []string{"serve"}, Env: []string{"A=image", "B=image"}, WorkingDir: "/srv"},
		User:       User{UID: 7, GID: 8, Groups: []uint32{8, 9}, Home: "/home/seven"},
		Files:      Files{Hostname: "/run/s/hostname", Hosts: "/run/s/hosts", ResolvConf: "/run/s/resolv.conf", Shm: "/run/s/shm"},
		Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, CgroupsPath: "/pod/x", Hostname: "web", HostCaps: hostCaps, PidsLimit: 100,
	}
}

// TestSpecifications keeps the whole specification of some typical containers
// as golden files, without the seccomp profile, which is a library's.
func TestSpecifications(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"plain": func(*Input) {},
		"everything": func(in *Input) {
			c := in.Container
			c.Command, c.Args, c.WorkingDir, c.Tty = []string{"sh"}, []string{"-c", "true"}, "/work", true
			c.Envs = []*rt.KeyValue{{Key: "B", Value: []byte("pod")}, {Key: "HOME", Value: []byte("/elsewhere")}}
			c.Mounts = []*rt.Mount{
				{ContainerPath: "/data/deep/er", HostPath: "/usr", Readonly: true, RecursiveReadOnly: true},
				{ContainerPath: "/data", HostPath: "/tmp", Propagation: rt.MountPropagation_PROPAGATION_BIDIRECTIONAL, MountOptions: []string{"noexec"}},
				{ContainerPath: "/etc/hosts", HostPath: "/etc/hosts"},
			}
			c.Devices = []*rt.Device{{HostPath: "/dev/null", ContainerPath: "/dev/nothing", Permissions: "r"}}
			c.Linux.Resources = &rt.LinuxContainerResources{CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 1 << 26,
				MemorySwapLimitInBytes: 1 << 26, OomScoreAdj: 900, CpusetCpus: "0", Unified: map[string]string{"memory.high": "1"}}
			sc := c.Linux.SecurityContext
			sc.NoNewPrivs, sc.ReadonlyRootfs = true, true
			sc.MaskedPaths, sc.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
			sc.Capabilities = &rt.Capability{AddCapabilities: []string{"net_admin"}, DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"CHOWN"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			change(&in)
			got, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			if got.Linux.Seccomp == nil || len(got.Linux.Seccomp.Syscalls) == 0 {
				t.Error("no seccomp profile")
			}
			got.Linux.Seccomp = nil
			golden(t, filepath.Join("testdata", name+".json"), got)
		})
	}
}

func golden(t *testing.T, path string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(want)) != string(got) {
		t.Errorf("%s differs (run with -update and read the difference):\n%s", path, got)
	}
}

// TestHomely: a home that nobody has chosen is the user's, and comes last.
func TestHomely(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		home string
		want []string
	}{
		"nobody said":     {[]string{"A=1", "DEVICE=x"}, "/home/seven", []string{"A=1", "DEVICE=x", "HOME=/home/seven"}},
		"somebody said":   {[]string{"HOME=/elsewhere", "A=1"}, "/home/seven", []string{"HOME=/elsewhere", "A=1"}},
		"said to be none": {[]string{"HOME="}, "/home/seven", []string{"HOME="}},
		"a longer name":   {[]string{"HOMELY=1"}, "/", []string{"HOMELY=1", "HOME=/"}},
		"not known":       {[]string{"A=1"}, "", []string{"A=1"}},
	} {
		if got := Homely(c.env, User{Home: c.home}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPrivileged(t *testing.T) {
	in := input()
	in.Container.Linux.SecurityContext = &rt.LinuxContainerSecurityContext{Privileged: true, MaskedPaths: []string{"/proc/kcore"},
		Capabilities: &rt.Capability{DropCapabilities: []string{"ALL"}}}
	got, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if got.Linux.Seccomp != nil || len(got.Linux.MaskedPaths) != 0 {
		t.Error("a privileged container is confined")
	}
	if !reflect.DeepEqual(got.Process.Capabilities.Effective, hostCaps) {
		t.Errorf("capabilities %v, want all of the host's", got.Process.Capabilities.Effective)
	}
	if !slices.ContainsFunc(got.Linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == "/dev/null" && d.Major == 1 && d.Minor == 3 }) {
		t.Error("the host's devices are missing")
	}
	for _, m := range got.Mounts {
		if m.Destination == "/sys" && slices.Contains(m.Options, "ro") {
			t.Error("/sys is read-only")
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.json")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	profile := func(path string) func(*Input) {
		return func(in *Input) {
			in.Container.Linux.SecurityContext.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: path}
		}
	}
	mount := func(m *rt.Mount) func(*Input) { return func(in *Input) { in.Container.Mounts = []*rt.Mount{m} } }
	for name, c := range map[string]struct {
		change func(*Input)
		want   string
	}{
		"no command":       {func(in *Input) { in.Image = ocispec.ImageConfig{} }, "no command specified"},
		"empty profile":    {profile(empty), "is empty"},
		"relative profile": {profile("x.json"), "not an absolute path"},
		"capability": {func(in *Input) {
			in.Container.Linux.SecurityContext.Capabilities = &rt.Capability{AddCapabilities: []string{"FLY"}}
		}, `"CAP_FLY" is unknown`},
		"root mount":       {mount(&rt.Mount{ContainerPath: "/..", HostPath: "/tmp"}), "root directory"},
		"mount option":     {mount(&rt.Mount{ContainerPath: "/x", HostPath: "/tmp", MountOptions: []string{"lowerdir=/"}}), "not allowed"},
		"rro and writable": {mount(&rt.Mount{ContainerPath: "/x", HostPath: "/tmp", RecursiveReadOnly: true}), "recursive read-only"},
		"not a device": {func(in *Input) {
			in.Container.Devices = []*rt.Device{{HostPath: "/etc/passwd", ContainerPath: "/dev/x"}}
		}, "not a device"},
		"image and path": {mount(&rt.Mount{ContainerPath: "/x", HostPath: "/tmp", Image: &rt.ImageSpec{Image: "i"}}), "an image and a host path"},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			c.change(&in)
			_, err := Build(in)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("got %v, want an invalid configuration that says %q", err, c.want)
			}
		})
	}
	in := input()
	mount(&rt.Mount{ContainerPath: "/x", HostPath: filepath.Join(dir, "missing")})(&in)
	if _, err := Build(in); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing host path: %v", err)
	}
}

func TestUsers(t *testing.T) {
	a := ParseAccounts([]byte("root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv/web:\nbig:x:99999999999:1::/:\n"),
		[]byte("root:x:0:\nwheel:x:10:root,web\nlogs:x:44:web\n"))
	id := func(n int64) *rt.Int64Value { return &rt.Int64Value{Value: n} }
	for _, c := range []struct {
		name  string
		sc    *rt.LinuxContainerSecurityContext
		image string
		want  string
	}{
		{"nobody says anything", nil, "", "0:0 [0 10] /root"},
		{"the image's name", nil, "web", "33:34 [34 10 44] /srv/web"},
		{"the image's name and group", nil, "web:logs", "33:44 [44 10] /srv/web"},
		{"a number without an account", nil, "1234", "1234:0 [0] /"},
		{"a number with one", &rt.LinuxContainerSecurityContext{RunAsUser: id(33)}, "root", "33:34 [34 10 44] /srv/web"},
		{"user and group", &rt.LinuxContainerSecurityContext{RunAsUser: id(5), RunAsGroup: id(6), SupplementalGroups: []int64{7, 6}}, "web", "5:6 [6 7] /"},
		{"a name in the request", &rt.LinuxContainerSecurityContext{RunAsUsername: "web"}, "", "33:34 [34 10 44] /srv/web"},
		{"strict groups", &rt.LinuxContainerSecurityContext{SupplementalGroups: []int64{7}, SupplementalGroupsPolicy: rt.SupplementalGroupsPolicy_Strict}, "web", "33:34 [34 7] /srv/web"},
		{"a group alone", &rt.LinuxContainerSecurityContext{RunAsGroup: id(6)}, "", "a group to run as needs a user to run as: invalid container configuration"},
		{"an unknown name", nil, "nobody", `user "nobody" is not in the image's /etc/passwd: invalid container configuration`},
		{"an unknown group", nil, "web:x", `group "x" is not in the image's /etc/group: invalid container configuration`},
		{"a broken number", nil, "big", `user "big" is not in the image's /etc/passwd: invalid container configuration`},
		{"a negative group", &rt.LinuxContainerSecurityContext{SupplementalGroups: []int64{-1}}, "", "supplemental group -1 is out of range: invalid container configuration"},
	} {
		u, err := a.Resolve(c.sc, c.image)
		got := fmt.Sprintf("%d:%d %v %s", u.UID, u.GID, u.Groups, u.Home)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestStopSignals(t *testing.T) {
	for name, want := range map[string]unix.Signal{"": 15, "SIGKILL": 9, "int": 2, "3": 3, "SIGRTMIN+3": 37, "SIGRTMAX-1": 63, "RTMIN": 34,
		"nonsense": 15, "-1": 15, "99": 15, "SIGRTMIN+99": 15} {
		if got := StopSignal(&rt.ContainerConfig{}, name); got != want {
			t.Errorf("image says %q: got %d, want %d", name, got, want)
		}
	}
	if got := StopSignal(&rt.ContainerConfig{StopSignal: rt.Signal_SIGNAL_SIGRTMINPLUS3}, "SIGINT"); got != 37 {
		t.Errorf("the pod's own signal: got %d, want 37", got)
	}
}

// profiles is a node with AppArmor, where one profile is loaded.
type profiles struct{ enabled, parser bool }

func (p profiles) Enabled() bool { return p.enabled }

func (p profiles) Default() (string, error) {
	if !p.parser {
		return "", errors.New("no parser")
	}
	return "default", nil
}

func (profiles) Loaded(name string) (bool, error) { return name == "mine", nil }

func TestAppArmor(t *testing.T) {
	ask := func(kind rt.SecurityProfile_ProfileType, name string) *rt.LinuxContainerSecurityContext {
		return &rt.LinuxContainerSecurityContext{Apparmor: &rt.SecurityProfile{ProfileType: kind, LocalhostRef: name}}
	}
	const standard, unconfined, local = rt.SecurityProfile_RuntimeDefault, rt.SecurityProfile_Unconfined, rt.SecurityProfile_Localhost
	full, bare, none := profiles{true, true}, profiles{true, false}, profiles{}
	for _, c := range []struct {
		name string
		sc   *rt.LinuxContainerSecurityContext
		node profiles
		want string
	}{
		{"nothing asked", nil, full, "default"},
		{"the default", ask(standard, ""), full, "default"},
		{"unconfined", ask(unconfined, ""), full, ""},
		{"by name", ask(local, "mine"), full, "mine"},
		{"by an unknown name", ask(local, "theirs"), full, `AppArmor profile "theirs" is not loaded on this node: invalid container configuration`},
		{"by no name", ask(local, ""), full, `AppArmor profile "" is not loaded on this node: invalid container configuration`},
		{"as it was said once", &rt.LinuxContainerSecurityContext{ApparmorProfile: "localhost/mine"}, full, "mine"},     //nolint:staticcheck // old agents still send it
		{"unconfined, as it was said once", &rt.LinuxContainerSecurityContext{ApparmorProfile: "unconfined"}, full, ""}, //nolint:staticcheck // old agents still send it
		{"privileged", &rt.LinuxContainerSecurityContext{Privileged: true, Apparmor: ask(local, "theirs").Apparmor}, full, ""},
		{"nothing asked, nothing to load it with", nil, bare, ""},
		{"the default, nothing to load it with", ask(standard, ""), bare, "default AppArmor profile: no parser"},
		{"nothing asked, no AppArmor", nil, none, ""},
		{"by name, no AppArmor", ask(local, "mine"), none, `AppArmor profile "mine" cannot be applied on this node: AppArmor is not enabled: invalid container configuration`},
	} {
		got, err := AppArmor(c.sc, c.node)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
