package core

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// claimPrefix begins the name under which the health of a claim's devices is
// reported: "claim:<claim>" or "claim:<claim>/<request>" (KEP-4680).
const claimPrefix = "claim:"

const (
	wantClaimText = "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' " +
		"when container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty"
	wantRequestText  = "must match one of the container's resource requests"
	wantExtendedText = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"
)

// validateExtendedClaim checks for which requests of which containers a claim was made
// that nobody wrote (KEP-5004).
func validateExtendedClaim(f *kinds.Faults, s *corev1.PodExtendedResourceClaimStatus, spec *corev1.PodSpec, at *kinds.Path) {
	if s == nil {
		return
	}
	mappings := at.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		f.Required(mappings, "at least one request mapping is required")
	}
	seen := sets.New[corev1.ContainerExtendedResourceRequest]()
	for i, m := range s.RequestMappings {
		here := mappings.Index(i)
		container := containerNamed(m.ContainerName, spec.Containers, spec.InitContainers)
		if container == nil {
			f.Invalid(here.Child("containerName"), m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name")
		} else if _, asked := container.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !asked {
			f.Invalid(here.Child("resourceName"), m.ResourceName, wantExtendedText)
		}
		f.Each(at.Child("requestName"), m.RequestName, validation.IsDNS1123Label(m.RequestName))
		if seen.Has(m) {
			f.Duplicate(here.Child("containerName"), m.ContainerName)
			f.Duplicate(here.Child("resourceName"), m.ResourceName)
			f.Duplicate(here.Child("requestName"), m.RequestName)
		}
		seen.Insert(m)
	}
	if name := at.Child("resourceClaimName"); f.NonEmpty(name, s.ResourceClaimName) {
		f.Each(name, s.ResourceClaimName, apivalidation.NameIsDNSSubdomain(s.ResourceClaimName, false))
	}
}

// containerNamed finds a container; of several with the name, one of the first list.
func containerNamed(name string, lists ...[]corev1.Container) *corev1.Container {
	for _, list := range lists {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// validateStatusUsers checks as whom a node says that containers run. User IDs may be
// larger here than those that a pod may ask for.
func validateStatusUsers(f *kinds.Faults, statuses []corev1.ContainerStatus, os *corev1.PodOS, at *kinds.Path) {
	for i := range statuses {
		if statuses[i].User == nil || statuses[i].User.Linux == nil {
			continue
		}
		user, here := statuses[i].User.Linux, at.Index(i).Child("user").Child("linux")
		switch {
		case os != nil && os.Name == corev1.Windows:
			f.Forbidden(here, "cannot be set for a windows pod")
			continue
		case os != nil && os.Name != corev1.Linux:
			continue
		case user.UID < 0 || user.UID > math.MaxUint32:
			f.Invalid(here.Child("uid"), user.UID, fmt.Sprintf("must be between 0 and %d, inclusive", int64(math.MaxUint32)))
		}
		f.Each(here.Child("gid"), user.GID, validation.IsValidGroupID(user.GID))
		for g, id := range user.SupplementalGroups {
			f.Each(here.Child("supplementalGroups").Index(g), id, validation.IsValidGroupID(id))
		}
	}
}

// validateDeviceHealth checks what a node says of the devices that containers have:
// each report is about something that its container asks for.
func validateDeviceHealth(f *kinds.Faults, s *corev1.PodStatus, statuses []corev1.ContainerStatus, containers []corev1.Container, at *kinds.Path) {
	for i := range statuses {
		container := containerNamed(statuses[i].Name, containers)
		for j, report := range statuses[i].AllocatedResourcesStatus {
			here := at.Index(i).Child("allocatedResourcesStatus").Index(j)
			text := wantRequestText
			if strings.HasPrefix(string(report.Name), claimPrefix) {
				text = wantClaimText
			}
			if container != nil && !reportable(container, report.Name, s.ExtendedResourceClaimStatus) {
				f.Invalid(here.Child("name"), report.Name, text)
			}
			validateHealth(f, report.Resources, here.Child("resources"))
		}
	}
}

// reportable says whether a container asks for what is reported under a name.
func reportable(c *corev1.Container, name corev1.ResourceName, extended *corev1.PodExtendedResourceClaimStatus) bool {
	claim, isClaim := strings.CutPrefix(string(name), claimPrefix)
	if !isClaim {
		_, asked := c.Resources.Requests[name]
		return asked
	}
	for _, own := range c.Resources.Claims {
		if own.Request == "" && own.Name == claim || own.Request != "" && own.Name+"/"+own.Request == claim {
			return true
		}
	}
	owner, request, _ := strings.Cut(claim, "/")
	if extended == nil || owner == "" || request == "" || owner != extended.ResourceClaimName {
		return false
	}
	for _, m := range extended.RequestMappings {
		amount := c.Resources.Requests[corev1.ResourceName(m.ResourceName)]
		if m.ContainerName == c.Name && m.RequestName == request && !amount.IsZero() {
			return true
		}
	}
	return false
}

func validateHealth(f *kinds.Faults, devices []corev1.ResourceHealth, at *kinds.Path) {
	seen := sets.New[corev1.ResourceID]()
	for i, d := range devices {
		here := at.Index(i)
		kinds.OneOf(f, here.Child("health"), d.Health, corev1.ResourceHealthStatusHealthy,
			corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
		switch message := here.Child("message"); {
		case d.Message == nil:
		case *d.Message == "":
			f.Required(message, "must be non-empty if specified")
		case len(*d.Message) > corev1.ResourceHealthMessageMaxLength:
			f.TooLong(message, corev1.ResourceHealthMessageMaxLength)
		}
		if seen.Has(d.ResourceID) {
			f.Duplicate(here.Child("resourceID"), d.ResourceID)
		}
		seen.Insert(d.ResourceID)
	}
}

// noDeviceHealth: debug containers have no devices.
func noDeviceHealth(f *kinds.Faults, statuses []corev1.ContainerStatus, at *kinds.Path) {
	for i := range statuses {
		if len(statuses[i].AllocatedResourcesStatus) > 0 {
			f.Forbidden(at.Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
}
