package core

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/component-helpers/node/util/sysctl"

	"github.com/sampan-dev/sampan/kinds"
)

const (
	maxSysctlName         = 253
	maxAppArmorProfile    = 4095 // PATH_MAX without the final zero
	localhostProfileField = "localhostProfile"
)

// sysctlName allows both separators: net.ipv4.ip_forward, net/ipv4/ip_forward.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

// checkPodSecurity checks the security context of the pod as a whole.
func (c *podCheck) checkPodSecurity(at *kinds.Path) {
	sc := c.spec.SecurityContext
	if sc == nil {
		return
	}
	c.groupID(at.Child("fsGroup"), sc.FSGroup)
	c.userID(at.Child("runAsUser"), sc.RunAsUser)
	c.groupID(at.Child("runAsGroup"), sc.RunAsGroup)
	for i := range sc.SupplementalGroups {
		c.groupID(at.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])
	}
	c.checkSysctls(sc.Sysctls, at.Child("sysctls"))
	if sc.FSGroupChangePolicy != nil {
		kinds.OneOf(&c.Faults, at.Child("fsGroupChangePolicy"), *sc.FSGroupChangePolicy,
			corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)
	}
	c.checkSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))
	c.checkWindowsOptions(sc.WindowsOptions, at.Child("windowsOptions"))
	c.checkAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))
	if sc.SupplementalGroupsPolicy != nil {
		kinds.OneOf(&c.Faults, at.Child("supplementalGroupsPolicy"), *sc.SupplementalGroupsPolicy,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if sc.SELinuxChangePolicy != nil {
		kinds.OneOf(&c.Faults, at.Child("seLinuxChangePolicy"), *sc.SELinuxChangePolicy,
			corev1.SELinuxChangePolicyRecursive, corev1.SELinuxChangePolicyMountOption)
	}
}

func (c *podCheck) groupID(at *kinds.Path, id *int64) {
	if id != nil {
		c.Each(at, *id, validation.IsValidGroupID(*id))
	}
}

func (c *podCheck) checkSysctls(list []corev1.Sysctl, at *kinds.Path) {
	names := sets.New[string]()
	for i, s := range list {
		here := at.Index(i).Child("name")
		switch {
		case s.Name == "":
			c.Required(here, "")
		case len(s.Name) > maxSysctlName || !sysctlName.MatchString(s.Name):
			c.Invalid(here, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlName))
		case names.Has(s.Name):
			c.Duplicate(here, s.Name)
		}
		names.Insert(s.Name)
		// A sysctl of a namespace that the pod shares would change the host.
		namespace, _, _ := sysctl.GetNamespace(s.Name)
		switch {
		case c.spec.HostNetwork && namespace == sysctl.NetNamespace:
			c.Invalid(here, s.Name, "may not be specified when 'hostNetwork' is true")
		case c.spec.HostIPC && namespace == sysctl.IPCNamespace:
			c.Invalid(here, s.Name, "may not be specified when 'hostIPC' is true")
		}
	}
}

// checkSecurityContext checks that of one container.
func (c *podCheck) checkSecurityContext(sc *corev1.SecurityContext, at *kinds.Path) {
	if sc == nil {
		return
	}
	c.userID(at.Child("runAsUser"), sc.RunAsUser)
	c.groupID(at.Child("runAsGroup"), sc.RunAsGroup)
	if sc.ProcMount != nil {
		kinds.Listed(&c.Faults, at.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if c.hostUsers() && *sc.ProcMount == corev1.UnmaskedProcMount {
			c.Invalid(at.Child("procMount"), sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	c.checkSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if kinds.Deref(sc.Privileged) {
			c.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if sc.Capabilities != nil {
			c.noSysAdmin(sc, at)
		}
	}
	c.checkWindowsOptions(sc.WindowsOptions, at.Child("windowsOptions"))
	c.checkAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))
}

func (c *podCheck) noSysAdmin(sc *corev1.SecurityContext, at *kinds.Path) {
	for _, capability := range sc.Capabilities.Add {
		if capability == "CAP_SYS_ADMIN" {
			c.Invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
		}
	}
}

func (c *podCheck) checkSeccomp(p *corev1.SeccompProfile, at *kinds.Path) {
	if p == nil {
		return
	}
	if p.Type == "" {
		c.Required(at.Child("type"), "type is required when seccompProfile is set")
	} else {
		kinds.Listed(&c.Faults, at.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost,
			corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	profile := at.Child(localhostProfileField)
	local := p.Type == corev1.SeccompProfileTypeLocalhost
	switch {
	case local && p.LocalhostProfile == nil:
		c.Required(profile, "must be set when seccomp type is Localhost")
	case local:
		c.descendingPath(profile, *p.LocalhostProfile)
	case p.LocalhostProfile != nil:
		c.Invalid(profile, p, "can only be set when seccomp type is Localhost")
	}
}

func (c *podCheck) checkAppArmor(p *corev1.AppArmorProfile, at *kinds.Path) {
	if p == nil {
		return
	}
	profile := at.Child(localhostProfileField)
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		name := kinds.Deref(p.LocalhostProfile)
		switch {
		case strings.TrimSpace(name) != name:
			c.Invalid(profile, name, "must not be padded with whitespace")
		case name == "":
			c.Required(profile, "must be set when AppArmor type is Localhost")
		}
		if len(name) > maxAppArmorProfile {
			c.TooLong(profile, maxAppArmorProfile)
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			c.Invalid(profile, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		c.Required(at.Child("type"), "type is required when appArmorProfile is set")
	default:
		kinds.Listed(&c.Faults, at.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost,
			corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

// ownUsers is why a pod with users of its own may not have what is the host's.
const ownUsers = "when `hostUsers` is false"

// checkNamespaces checks which of the host's namespaces a pod may share at once.
func (c *podCheck) checkNamespaces(at *kinds.Path) {
	spec := c.spec
	if kinds.Deref(spec.ShareProcessNamespace) && spec.HostPID {
		c.Invalid(at.Child("shareProcessNamespace"), *spec.ShareProcessNamespace,
			"ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if c.hostUsers() {
		return
	}
	if spec.HostNetwork {
		c.Forbidden(at.Child("hostNetwork"), ownUsers)
	}
	if spec.HostPID {
		c.Forbidden(at.Child("HostPID"), ownUsers)
	}
	if spec.HostIPC {
		c.Forbidden(at.Child("HostIPC"), ownUsers)
	}
	eachContainer(spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		if len(container.VolumeDevices) > 0 {
			c.Forbidden(at.Child("volumeDevices"), ownUsers)
		}
	})
}
