package spec

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Paths of /proc and /sys that containers don't see, or see read-only, unless
// procMount is Unmasked: the ecosystem's list.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// effective is the container's security context with the pod's filled in.
func effective(pod *corev1.Pod, c *corev1.Container) corev1.SecurityContext {
	var sc corev1.SecurityContext
	if p := pod.Spec.SecurityContext; p != nil {
		sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot = p.RunAsUser, p.RunAsGroup, p.RunAsNonRoot
		sc.SELinuxOptions, sc.SeccompProfile, sc.AppArmorProfile = p.SELinuxOptions, p.SeccompProfile, p.AppArmorProfile
	}
	own := c.SecurityContext
	if own == nil {
		return sc
	}
	fill(&sc.RunAsUser, own.RunAsUser)
	fill(&sc.RunAsGroup, own.RunAsGroup)
	fill(&sc.RunAsNonRoot, own.RunAsNonRoot)
	fill(&sc.SELinuxOptions, own.SELinuxOptions)
	fill(&sc.SeccompProfile, own.SeccompProfile)
	fill(&sc.AppArmorProfile, own.AppArmorProfile)
	sc.Capabilities, sc.Privileged, sc.ReadOnlyRootFilesystem = own.Capabilities, own.Privileged, own.ReadOnlyRootFilesystem
	sc.AllowPrivilegeEscalation, sc.ProcMount = own.AllowPrivilegeEscalation, own.ProcMount
	return sc
}

func fill[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

// checkNonRoot enforces runAsNonRoot against the spec's and the image's user.
// The texts are upstream's.
func (m Make) checkNonRoot() error {
	sc := effective(m.Pod, m.Container)
	if !isTrue(sc.RunAsNonRoot) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", FullName(m.Pod), m.Container.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case m.Image.User != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", m.Image.User, where)
	case m.Image.UID == nil || *m.Image.UID == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

func (m Make) security() (*rt.LinuxContainerSecurityContext, error) {
	sc := effective(m.Pod, m.Container)
	out := &rt.LinuxContainerSecurityContext{
		Privileged:               isTrue(sc.Privileged),
		ReadonlyRootfs:           isTrue(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:               sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		NamespaceOptions:         Namespaces(m.Pod),
		SelinuxOptions:           selinux(sc.SELinuxOptions),
		SupplementalGroups:       append(supplemental(m.Pod), m.Groups...),
		SupplementalGroupsPolicy: groupsPolicy(m.Pod),
		Capabilities:             capabilities(sc.Capabilities),
		Seccomp:                  m.seccomp(sc),
		Apparmor:                 apparmor(sc.AppArmorProfile),
	}
	if out.Seccomp.ProfileType == rt.SecurityProfile_Localhost && sc.SeccompProfile.LocalhostProfile == nil {
		return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost")
	}
	if m.Target != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = rt.NamespaceMode_TARGET, m.Target
	}
	m.user(sc, out)
	if sc.ProcMount == nil || *sc.ProcMount == corev1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	return out, nil
}

// user is who the container runs as: the spec's user, else the image's. The
// image's own group comes with its user, so that a group alone needs one too.
func (m Make) user(sc corev1.SecurityContext, out *rt.LinuxContainerSecurityContext) {
	switch {
	case sc.RunAsUser != nil:
		out.RunAsUser = &rt.Int64Value{Value: *sc.RunAsUser}
	case m.Image.UID != nil:
		out.RunAsUser = &rt.Int64Value{Value: *m.Image.UID}
	case m.Image.User != "":
		out.RunAsUsername = m.Image.User
	}
	if sc.RunAsGroup == nil {
		return
	}
	out.RunAsGroup = &rt.Int64Value{Value: *sc.RunAsGroup}
	if out.RunAsUser == nil && out.RunAsUsername == "" {
		out.RunAsUser = &rt.Int64Value{}
	}
}

// seccomp is RuntimeDefault unless the pod asks otherwise: safer than upstream,
// where nothing asked means nothing filtered unless seccompDefault is set.
func (m Make) seccomp(sc corev1.SecurityContext) *rt.SecurityProfile {
	if isTrue(sc.Privileged) {
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	}
	if sc.SeccompProfile == nil && m.Node.SeccompUnconfined {
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	}
	if sc.SeccompProfile == nil {
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}
	}
	return profile(sc.SeccompProfile, m.Node.SeccompRoot)
}

// profile never widens: an unknown type is RuntimeDefault.
func profile(p *corev1.SeccompProfile, root string) *rt.SecurityProfile {
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	case corev1.SeccompProfileTypeLocalhost:
		out := &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost}
		if p.LocalhostProfile != nil {
			out.LocalhostRef = filepath.Join(root, filepath.Clean("/"+*p.LocalhostProfile))
		}
		return out
	}
	return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}
}

func apparmor(p *corev1.AppArmorProfile) *rt.SecurityProfile {
	if p == nil {
		return nil
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	case corev1.AppArmorProfileTypeLocalhost:
		out := &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost}
		if p.LocalhostProfile != nil {
			out.LocalhostRef = *p.LocalhostProfile
		}
		return out
	}
	return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}
}

func capabilities(c *corev1.Capabilities) *rt.Capability {
	if c == nil {
		return nil
	}
	out := &rt.Capability{}
	for _, a := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, string(a))
	}
	for _, d := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, string(d))
	}
	return out
}

func selinux(o *corev1.SELinuxOptions) *rt.SELinuxOption {
	if o == nil {
		return nil
	}
	return &rt.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func supplemental(pod *corev1.Pod) []int64 {
	p := pod.Spec.SecurityContext
	if p == nil {
		return nil
	}
	var groups []int64
	if p.FSGroup != nil {
		groups = append(groups, *p.FSGroup)
	}
	return append(groups, p.SupplementalGroups...)
}

func groupsPolicy(pod *corev1.Pod) rt.SupplementalGroupsPolicy {
	p := pod.Spec.SecurityContext
	if p != nil && p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return rt.SupplementalGroupsPolicy_Strict
	}
	return rt.SupplementalGroupsPolicy_Merge
}
