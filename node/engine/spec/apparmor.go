package spec

import (
	"fmt"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Profiles are the node's AppArmor profiles.
type Profiles interface {
	// Enabled says that the kernel confines processes by AppArmor.
	Enabled() bool
	// Default is the name of the engine's own profile, which it loads first if need be.
	Default() (string, error)
	// Loaded says whether the kernel knows a profile.
	Loaded(name string) (bool, error)
}

// AppArmor is the profile that a container runs under, "" for none. One that is asked for
// and not to be had is an error: a container must not run with less than it asks
// for. One that asks for nothing gets the engine's own where there is one.
func AppArmor(sc *rt.LinuxContainerSecurityContext, node Profiles) (string, error) {
	if sc.GetPrivileged() {
		return "", nil // to which none applies
	}
	p := sc.GetApparmor()
	if p == nil {
		p = oldAppArmor(sc.GetApparmorProfile()) //nolint:staticcheck // old agents still send it
	}
	if !node.Enabled() {
		if p.GetProfileType() == rt.SecurityProfile_Localhost {
			return "", fmt.Errorf("AppArmor profile %q cannot be applied on this node: AppArmor is not enabled: %w", p.GetLocalhostRef(), ErrInvalid)
		}
		return "", nil
	}
	switch p.GetProfileType() {
	case rt.SecurityProfile_Unconfined:
		return "", nil
	case rt.SecurityProfile_Localhost:
		return localAppArmor(p.GetLocalhostRef(), node)
	}
	name, err := node.Default()
	if err != nil && p != nil {
		return "", fmt.Errorf("default AppArmor profile: %w", err)
	}
	return name, nil
}

func localAppArmor(name string, node Profiles) (string, error) {
	loaded, err := node.Loaded(name)
	if err != nil {
		return "", err
	}
	if name == "" || !loaded {
		return "", fmt.Errorf("AppArmor profile %q is not loaded on this node: %w", name, ErrInvalid)
	}
	return name, nil
}

// oldAppArmor reads a profile as requests had it before it had a message of its own; nil
// for none.
func oldAppArmor(s string) *rt.SecurityProfile {
	local, ok := strings.CutPrefix(s, "localhost/")
	switch {
	case ok:
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: local}
	case s == "unconfined":
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	case s == "runtime/default":
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}
	}
	return nil
}
