package spec

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxProfile bounds a seccomp profile on the node, in bytes; the default one has
// twenty thousand.
const maxProfile = 1 << 20

// seccompOf chooses the profile that is asked for. Whoever names none gets none, as the
// CRI says of the old field and containerd does for both; an agent names the runtime's
// own. A profile that cannot be read or is empty is an error, never "none"
// (CVE-2023-2431).
func seccompOf(sc *rt.LinuxContainerSecurityContext, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	p := sc.GetSeccomp()
	if p == nil {
		p = legacyProfile(sc.GetSeccompProfilePath()) //nolint:staticcheck // old agents still send it
	}
	switch p.GetProfileType() {
	case rt.SecurityProfile_Unconfined:
		return nil, nil
	case rt.SecurityProfile_Localhost:
		return localProfile(p.GetLocalhostRef(), s)
	}
	out, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return out, nil
}

func legacyProfile(name string) *rt.SecurityProfile {
	switch {
	case name == "", name == "unconfined":
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Unconfined}
	case strings.HasPrefix(name, "localhost/"):
		return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: strings.TrimPrefix(name, "localhost/")}
	}
	return &rt.SecurityProfile{ProfileType: rt.SecurityProfile_RuntimeDefault}
}

func localProfile(path string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("seccomp profile %q is not an absolute path: %w", path, ErrInvalid)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w", path, err)
	}
	if len(raw) > maxProfile {
		return nil, fmt.Errorf("seccomp profile %q is larger than %d bytes: %w", path, maxProfile, ErrInvalid)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, fmt.Errorf("seccomp profile %q is empty: %w", path, ErrInvalid)
	}
	out, err := seccomp.LoadProfile(string(raw), s)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %q: %w", path, err)
	}
	if out == nil || out.DefaultAction == "" {
		return nil, fmt.Errorf("seccomp profile %q says nothing: %w", path, ErrInvalid)
	}
	return out, nil
}
