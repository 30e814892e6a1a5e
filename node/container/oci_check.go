package container

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// checkSpec refuses what the specification says is an error and nothing else would notice
// (runtime-spec 1.3, config.md and config-linux.md, where they say MUST).
func checkSpec(s *specs.Spec) error {
	return firstOf(
		func() error { return checkVersion(s.Version) },
		func() error { return checkNamespaces(s) },
		func() error { return checkProcess(s.Process) },
		func() error { return checkHooks(s.Hooks) },
		func() error { return checkRest(s) },
	)
}

// checkVersion takes the versions of the specification that this is an implementation of,
// and those to come that mean the same: all that begin with 1.
func checkVersion(version string) error {
	numbers, _, _ := strings.Cut(version, "+")
	numbers, _, _ = strings.Cut(numbers, "-")
	parts := strings.Split(numbers, ".")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "0123456789") != "" {
			parts = nil
		}
	}
	if len(parts) != 3 {
		return fmt.Errorf("ociVersion %q is not a semantic version", version)
	}
	if parts[0] != "1" {
		return fmt.Errorf("ociVersion %q is not supported: this is an implementation of %s", version, specs.Version)
	}
	return nil
}

func checkNamespaces(s *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		if seen[ns.Type] {
			return fmt.Errorf("namespace %q is there twice", ns.Type)
		}
		if ns.Path != "" && !filepath.IsAbs(ns.Path) {
			return fmt.Errorf("namespace %q: path %q must be absolute", ns.Type, ns.Path)
		}
		seen[ns.Type] = true
	}
	if s.Hostname+s.Domainname != "" && !seen[specs.UTSNamespace] {
		return errors.New("a hostname or domainname needs a UTS namespace")
	}
	return nil
}

func checkProcess(p *specs.Process) error {
	if !filepath.IsAbs(p.Cwd) {
		return fmt.Errorf("cwd %q must be absolute", p.Cwd)
	}
	seen := map[string]bool{}
	for _, l := range p.Rlimits {
		if seen[l.Type] {
			return fmt.Errorf("rlimit %q is there twice", l.Type)
		}
		seen[l.Type] = true
	}
	const worst = 1000
	if adj := p.OOMScoreAdj; adj != nil && (*adj < -worst || *adj > worst) {
		return fmt.Errorf("oomScoreAdj %d: must be between %d and %d", *adj, -worst, worst)
	}
	return planAffinity(&plan.Process{}, p.ExecCPUAffinity)
}

func checkHooks(h *specs.Hooks) error {
	if h == nil {
		return nil
	}
	for _, all := range [][]specs.Hook{h.Prestart, h.CreateRuntime, h.CreateContainer, h.StartContainer, h.Poststart, h.Poststop} { //nolint:staticcheck // prestart is deprecated, and used
		for _, hook := range all {
			if !filepath.IsAbs(hook.Path) {
				return fmt.Errorf("hook %q: path must be absolute", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fmt.Errorf("hook %q: timeout %d must be greater than zero", hook.Path, *hook.Timeout)
			}
		}
	}
	return nil
}

func checkRest(s *specs.Spec) error {
	for _, d := range s.Linux.Devices {
		switch d.Type {
		case "c", "b", "u", "p":
		default:
			return fmt.Errorf("device %q: type %q is not known", d.Path, d.Type)
		}
	}
	if _, empty := s.Annotations[""]; empty {
		return errors.New("an annotation has no key")
	}
	if s.Linux.IntelRdt != nil {
		return errors.New("intelRdt is not supported")
	}
	return nil
}
