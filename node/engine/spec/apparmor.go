package spec

import (
	"fmt"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckAppArmor refuses a profile of the node's that a container asks for by name: no
// profile is applied here, and a container must not run with less than it asks for.
// The default profile, or none, is as good as not asking.
func CheckAppArmor(sc *rt.LinuxContainerSecurityContext) error {
	if sc.GetPrivileged() {
		return nil // to which none applies
	}
	name, local := strings.CutPrefix(sc.GetApparmorProfile(), "localhost/") //nolint:staticcheck // old agents still send it
	if p := sc.GetApparmor(); p != nil {
		name, local = p.GetLocalhostRef(), p.GetProfileType() == rt.SecurityProfile_Localhost
	}
	if local {
		return fmt.Errorf("AppArmor profile %q cannot be applied on this node: %w", name, ErrInvalid)
	}
	return nil
}
