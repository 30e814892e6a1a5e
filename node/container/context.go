package container

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// fileLabel is the SELinux label of the files that a container is given by way of new
// file systems: linux.mountLabel of its spec. Empty leaves them to the policy, and is
// all that there is without SELinux.
func (r *Runtime) fileLabel(spec *specs.Spec) string {
	if spec.Linux.MountLabel == "" || !r.labelsFiles() {
		return ""
	}
	return spec.Linux.MountLabel
}

// inContext has a new file system appear under one label. What is bound has its own, and
// of the kernel's some are one for all who mount them: a label is either that of their
// root alone, or the policy's.
func inContext(m *plan.Mount, label string) {
	switch {
	case label == "", m.Bind, m.Remount, m.Context != "":
	case m.Type == "proc", m.Type == "sysfs", strings.HasPrefix(m.Type, "cgroup"):
	case m.Type == "mqueue":
		m.RootLabel = label
	default:
		m.Context = label
	}
}
