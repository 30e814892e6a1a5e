package spec

import (
	"errors"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// fedora is a node whose policy knows containers, and the next free level is of c1 and c2.
func fedora() Policy {
	return Policy{
		Contexts: selinux.Contexts{
			Process: selinux.Label{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0"},
			File:    selinux.Label{User: "system_u", Role: "object_r", Type: "container_file_t", Level: "s0"},
		},
		Check: func(label string) error {
			if strings.Contains(label, "strange") {
				return errors.New("SELinux label " + label + ": strange")
			}
			return nil
		},
		Level: func() string { return "s0:c1,c2" },
	}
}

func options(text string) *rt.SELinuxOption {
	if text == "" {
		return nil
	}
	f := strings.Split(text, " ")
	return &rt.SELinuxOption{User: f[0], Role: f[1], Type: f[2], Level: f[3]}
}

func TestSELinux(t *testing.T) {
	const container, file = "system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"
	const node, pod = rt.NamespaceMode_NODE, rt.NamespaceMode_POD
	for _, c := range []struct {
		name, pod, container string // user, role, type and level that are asked for
		privileged           bool
		pid, ipc             rt.NamespaceMode
		want                 [2]string // of its processes and files
	}{
		{name: "nothing asked", want: [2]string{container + ":c1,c2", file + ":c1,c2"}},
		{name: "a level of the pod", pod: "   s0:c3,c4", want: [2]string{container + ":c3,c4", file + ":c3,c4"}},
		{name: "a type of the pod", pod: "  spc_t ", want: [2]string{"system_u:system_r:spc_t:s0:c1,c2", file + ":c1,c2"}},
		{name: "all of the pod", pod: "u r t s1", want: [2]string{"u:r:t:s1", "u:object_r:container_file_t:s1"}},
		{name: "the pod's, and a type of the container", pod: "u r t s1", container: "  own_t ", want: [2]string{"u:r:own_t:s1", "u:object_r:container_file_t:s1"}},
		{name: "a level of the container", container: "   s0:c9,c10", want: [2]string{container + ":c9,c10", file + ":c9,c10"}},
		{name: "a user of the container", container: "staff_u   ", want: [2]string{"staff_u:system_r:container_t:s0:c1,c2", "staff_u:object_r:container_file_t:s0:c1,c2"}},
		{name: "privileged", privileged: true, want: [2]string{"", file + ":c1,c2"}},
		{name: "privileged, and a type", privileged: true, container: "  own_t ", want: [2]string{"", file + ":c1,c2"}},
		{name: "all processes of the host", pid: node, want: [2]string{"", file + ":c1,c2"}},
		{name: "all memory segments of the host", ipc: node, want: [2]string{"", file + ":c1,c2"}},
		{name: "all processes of the host, and a type", pid: node, container: "  own_t ", want: [2]string{"system_u:system_r:own_t:s0:c1,c2", file + ":c1,c2"}},
		{name: "all processes of the host, and a level of the pod", pid: node, pod: "   s0:c3,c4", want: [2]string{container + ":c3,c4", file + ":c3,c4"}},
		{name: "namespaces of its own", pid: pod, ipc: pod, want: [2]string{container + ":c1,c2", file + ":c1,c2"}},
		{name: "a type that the policy has not", container: "  strange_t ", want: [2]string{"SELinux label system_u:system_r:strange_t:s0:c1,c2: strange: invalid container configuration"}},
		{name: "no type at all", container: `  a,b="c `, want: [2]string{`SELinux type "a,b=\"c": want letters, digits and _.-: invalid container configuration`}},
	} {
		box := &rt.PodSandboxConfig{Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{SelinuxOptions: options(c.pod)}}}
		in := &rt.ContainerConfig{Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{
			SelinuxOptions: options(c.container), Privileged: c.privileged, NamespaceOptions: &rt.NamespaceOption{Pid: c.pid, Ipc: c.ipc},
		}}}
		labels, err := PodLabels(box, fedora())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := ContainerLabels(in, box, labels, fedora())
		if err != nil {
			got = Labels{Process: err.Error()}
		}
		if got != (Labels{c.want[0], c.want[1]}) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: not the caller's fault: %v", c.name, err)
		}
		bare := fedora()
		bare.Contexts = selinux.Contexts{}
		if l, err := PodLabels(box, bare); l != (Labels{}) || err != nil {
			t.Errorf("%s, without SELinux: %q %v", c.name, l, err)
		}
		if l, err := ContainerLabels(in, box, Labels{}, fedora()); l != (Labels{}) || err != nil {
			t.Errorf("%s, in a pod of before: %q %v", c.name, l, err)
		}
	}
	if _, err := PodLabels(&rt.PodSandboxConfig{Linux: &rt.LinuxPodSandboxConfig{
		SecurityContext: &rt.LinuxSandboxSecurityContext{SelinuxOptions: options("  strange_t ")}}}, fedora()); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	flat := fedora() // a policy without levels
	flat.Process.Level, flat.File.Level = "", ""
	if l, err := PodLabels(&rt.PodSandboxConfig{}, flat); err != nil || l != (Labels{"system_u:system_r:container_t", "system_u:object_r:container_file_t"}) {
		t.Errorf("%q %v", l, err)
	}
}

func TestSpecHasLabels(t *testing.T) {
	in := input()
	in.SELinux = Labels{"u:r:t:s0:c1,c2", "u:object_r:f:s0:c1,c2"}
	s, err := Build(in)
	if err != nil || s.Process.SelinuxLabel != in.SELinux.Process || s.Linux.MountLabel != in.SELinux.Mount {
		t.Errorf("%+v %v", s, err)
	}
}
