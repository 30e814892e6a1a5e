package spec

import (
	"fmt"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// Labels are what SELinux knows a pod or a container by. Both are empty where there is
// no SELinux.
type Labels struct {
	// Process is that of its processes; empty leaves them that of the engine's.
	Process string
	// Mount is that of the files that are its own.
	Mount string
}

// Policy is what the node's SELinux says of containers.
type Policy struct {
	// Contexts are what containers are called; zero where there is no SELinux, or its
	// policy has no word for them.
	selinux.Contexts
	// Check says whether the policy knows a label.
	Check func(label string) error
	// Level makes a level that no pod has.
	Level func() string
}

// knows says that containers have labels here.
func (p Policy) knows() bool { return p.Process != (selinux.Label{}) }

// PodLabels are those of a pod: what it asks for, in the place of what the policy says
// of containers, and if it asks for no level one of its own, by which the policy keeps
// it apart from all other pods.
func PodLabels(c *rt.PodSandboxConfig, node Policy) (Labels, error) {
	if !node.knows() {
		return Labels{}, nil
	}
	base := node.Process
	asked := optionsOf(c.GetLinux().GetSecurityContext().GetSelinuxOptions())
	if base.Level != "" && asked.Level == "" {
		base.Level = node.Level()
	}
	return node.labels(base, asked)
}

// ContainerLabels are those of a container: its pod's, with what it asks for itself. Its
// processes have none of their own when it is privileged, and neither when it sees all of
// the host's processes or memory segments and asks for none, as with other engines: they
// would have that namespace, and not be allowed to touch anything in it.
func ContainerLabels(c *rt.ContainerConfig, pod *rt.PodSandboxConfig, labels Labels, node Policy) (Labels, error) {
	if !node.knows() || labels.Process == "" { // a pod of before there was SELinux
		return Labels{}, nil
	}
	base, err := selinux.Parse(labels.Process)
	if err != nil {
		return Labels{}, fmt.Errorf("pod: %w", err)
	}
	sc := c.GetLinux().GetSecurityContext()
	asked := optionsOf(sc.GetSelinuxOptions())
	out, err := node.labels(base, asked)
	if err != nil {
		return Labels{}, err
	}
	none := asked == (selinux.Label{}) && optionsOf(pod.GetLinux().GetSecurityContext().GetSelinuxOptions()) == (selinux.Label{})
	if ns := sc.GetNamespaceOptions(); sc.GetPrivileged() || none && (ns.GetPid() == rt.NamespaceMode_NODE || ns.GetIpc() == rt.NamespaceMode_NODE) {
		out.Process = ""
	}
	return out, nil
}

// labels are a process's label, and that of the files which are its to use: the policy's
// own for those, with the process's user and level.
func (p Policy) labels(base, asked selinux.Label) (Labels, error) {
	if err := asked.Valid(); err != nil {
		return Labels{}, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	process := base.With(asked)
	file := p.File.With(selinux.Label{User: asked.User, Level: process.Level})
	if base.User != p.Process.User { // the pod's own
		file.User = process.User
	}
	out := Labels{Process: process.String(), Mount: file.String()}
	for _, label := range []string{out.Process, out.Mount} {
		if err := p.Check(label); err != nil {
			return Labels{}, fmt.Errorf("%w: %w", err, ErrInvalid)
		}
	}
	return out, nil
}

func optionsOf(o *rt.SELinuxOption) selinux.Label {
	return selinux.Label{User: o.GetUser(), Role: o.GetRole(), Type: o.GetType(), Level: o.GetLevel()}
}

// LevelOf is the level of a label, empty where it has none.
func LevelOf(label string) string {
	l, err := selinux.Parse(label)
	if err != nil {
		return ""
	}
	return l.Level
}
