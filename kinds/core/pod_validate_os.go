package core

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// The limits of Windows' names.
const (
	maxCredentialSpecKiB = 64
	maxUserDomain        = 256
	maxUserName          = 104
)

// The forms of Windows' names: domains are NetBIOS or DNS names.
var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]+`)
	netBIOSDomain     = regexp.MustCompile(`^[^\\/:\*\?"<>|.][^\\/:\*\?"<>|]{0,14}$`)
	dnsDomain         = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	badUserCharacters = regexp.MustCompile(`["/\\:;|=,\+\*\?<>@\[\]]`)
	onlyDotsOrSpaces  = regexp.MustCompile(`^[. ]+$`)
)

// named is a field that may be set or not.
type named struct {
	field string
	set   bool
}

// checkOS checks that a pod that names its system asks for nothing of another.
func (c *podCheck) checkOS(at *kinds.Path) {
	c.checkHostProcess(at)
	os := c.spec.OS
	if os == nil {
		return
	}
	switch os.Name {
	case "":
		c.Required(at.Child("os").Child("name"), "")
	case corev1.Linux:
		c.checkLinux(at)
	case corev1.Windows:
		c.checkWindows(at)
	default:
		kinds.OneOf(&c.Faults, at.Child("os"), os.Name, corev1.Linux, corev1.Windows)
	}
}

func (c *podCheck) checkLinux(at *kinds.Path) {
	const why = "windows options cannot be set for a linux pod"
	if sc := c.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		c.Forbidden(at.Child("securityContext").Child("windowsOptions"), why)
	}
	eachContainer(c.spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		if sc := container.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			c.Forbidden(at.Child("securityContext").Child("windowsOptions"), why)
		}
	})
}

func (c *podCheck) checkWindows(at *kinds.Path) {
	if sc := c.spec.SecurityContext; sc != nil {
		c.notOnWindows(at.Child("securityContext"), []named{
			{"appArmorProfile", sc.AppArmorProfile != nil}, {"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil}, {"fsGroup", sc.FSGroup != nil},
			{"fsGroupChangePolicy", sc.FSGroupChangePolicy != nil}, {"sysctls", len(sc.Sysctls) > 0},
			{"runAsUser", sc.RunAsUser != nil}, {"runAsGroup", sc.RunAsGroup != nil},
			{"supplementalGroups", sc.SupplementalGroups != nil},
			{"supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil},
			{"seLinuxChangePolicy", sc.SELinuxChangePolicy != nil},
		})
	}
	c.notOnWindows(at, []named{
		{"hostUsers", c.spec.HostUsers != nil}, {"hostPID", c.spec.HostPID}, {"hostIPC", c.spec.HostIPC},
		{"shareProcessNamespace", c.spec.ShareProcessNamespace != nil},
	})
	eachContainer(c.spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		sc := container.SecurityContext
		if sc == nil {
			return
		}
		c.notOnWindows(at.Child("securityContext"), []named{
			{"appArmorProfile", sc.AppArmorProfile != nil}, {"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil}, {"capabilities", sc.Capabilities != nil},
			{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil}, {"privileged", sc.Privileged != nil},
			{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil}, {"procMount", sc.ProcMount != nil},
			{"runAsUser", sc.RunAsUser != nil}, {"runAsGroup", sc.RunAsGroup != nil},
		})
	})
}

func (c *podCheck) notOnWindows(at *kinds.Path, fields []named) {
	for _, f := range fields {
		if f.set {
			c.Forbidden(at.Child(f.field), "cannot be set for a windows pod")
		}
	}
}

// checkHostProcess: if one container is a host process, all are, in the host's
// network.
func (c *podCheck) checkHostProcess(at *kinds.Path) {
	var ofPod *bool
	if sc := c.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		ofPod = sc.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	eachContainer(c.spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		all++
		var own *bool
		if sc := container.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			own = sc.WindowsOptions.HostProcess
		}
		if own != nil && ofPod != nil && *own != *ofPod {
			c.Invalid(at.Child("securityContext").Child("windowsOptions").Child("hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *ofPod))
		}
		if kinds.Deref(own) || (own == nil && kinds.Deref(ofPod)) {
			host++
		}
	})
	if host == 0 {
		return
	}
	if host != all {
		c.Invalid(at, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !c.spec.HostNetwork {
		c.Invalid(at.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}

func (c *podCheck) checkWindowsOptions(o *corev1.WindowsSecurityContextOptions, at *kinds.Path) {
	if o == nil {
		return
	}
	if o.GMSACredentialSpecName != nil {
		c.Each(at.Child("gmsaCredentialSpecName"), o.GMSACredentialSpecName, validation.IsDNS1123Subdomain(*o.GMSACredentialSpecName))
	}
	if spec := o.GMSACredentialSpec; spec != nil {
		switch {
		case *spec == "":
			c.Invalid(at.Child("gmsaCredentialSpec"), spec, "gmsaCredentialSpec cannot be an empty string")
		case len(*spec) > maxCredentialSpecKiB<<10:
			c.Invalid(at.Child("gmsaCredentialSpec"), spec, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxCredentialSpecKiB))
		}
	}
	if o.RunAsUserName != nil {
		for _, problem := range windowsUser(*o.RunAsUserName) {
			c.Invalid(at.Child("runAsUserName"), o.RunAsUserName, problem)
		}
	}
}

// windowsUser says what is wrong with a name of the form DOMAIN\user or user.
func windowsUser(name string) []string {
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case controlCharacters.MatchString(name):
		return []string{"runAsUserName cannot contain control characters"}
	case strings.Count(name, `\`) > 1:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var problems []string
	domain, user, hasDomain := strings.Cut(name, `\`)
	if !hasDomain {
		domain, user = "", name
	}
	if len(domain) >= maxUserDomain {
		problems = append(problems, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxUserDomain))
	}
	if hasDomain && !netBIOSDomain.MatchString(domain) && !dnsDomain.MatchString(domain) {
		problems = append(problems, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	switch {
	case user == "":
		problems = append(problems, "runAsUserName's User cannot be empty")
	case len(user) > maxUserName:
		problems = append(problems, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxUserName))
	}
	if onlyDotsOrSpaces.MatchString(user) {
		problems = append(problems, "runAsUserName's User cannot contain only periods or spaces")
	}
	if badUserCharacters.MatchString(user) {
		problems = append(problems, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return problems
}
