package build

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container"
)

// Sandbox is a Runner on a container runtime: each RUN is a container with pids,
// mounts and host name of its own, Docker's default capabilities and, unless the
// instruction says --network=none, the host's network.
type Sandbox struct {
	Runtime *container.Runtime
	// Devices adds devices to a specification by their names; nil: there are none.
	Devices func(*specs.Spec, []string) error
}

// Run implements Runner.
func (s Sandbox) Run(ctx context.Context, r Run) (err error) {
	id := "build-" + rand.Text()
	spec, err := runSpec(r)
	if err != nil {
		return err
	}
	if len(r.Devices) > 0 {
		if s.Devices == nil {
			return fmt.Errorf("devices %q: %w", r.Devices, ErrUnsupported)
		}
		if err := s.Devices(spec, r.Devices); err != nil {
			return err
		}
	}
	err = s.Runtime.Create(ctx, container.CreateConfig{
		ID: id, Spec: spec, Rootfs: container.Rootfs{Lower: r.Lower, Upper: r.Upper, Work: r.Work},
		// For one client, us: what it prints before we are attached is kept.
		StdinOnce: true,
	})
	if err != nil {
		return fmt.Errorf("make the build's container: %w", err)
	}
	defer func() { err = errors.Join(err, s.Runtime.Remove(context.WithoutCancel(ctx), id)) }()
	copied := make(chan error, 1)
	go func() { copied <- s.Runtime.Attach(ctx, id, nil, output(r.Output), output(r.Output), nil) }()
	if err := s.Runtime.Start(ctx, id); err != nil {
		return err
	}
	status, err := s.Runtime.Wait(ctx, id)
	if err != nil {
		return err
	}
	<-copied // the last of the output; that it ended early is told by the exit code
	if status.ExitCode != 0 {
		return &ExitError{Code: status.ExitCode}
	}
	return nil
}

// defaultHostname is what a RUN's machine is called when nobody says so.
const defaultHostname = "build"

type output func([]byte)

func (o output) Write(p []byte) (int, error) {
	o(p)
	return len(p), nil
}

// runSpec is the OCI runtime specification of a RUN: every default that a container
// has, seccomp included, but that privileges may be gained by set-uid programs, as
// package managers do.
func runSpec(r Run) (*specs.Spec, error) {
	spec := container.DefaultSpec()
	spec.Hostname = cmp.Or(r.Hostname, defaultHostname)
	p := spec.Process
	p.Args, p.Env, p.Cwd, p.NoNewPrivileges = r.Args, r.Env, r.WorkingDir, false
	p.User = specs.User{UID: r.UID, GID: r.GID, AdditionalGids: r.Groups}
	if r.UID != 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = nil, nil
	}
	if !r.NetworkNone {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		const file = "/etc/resolv.conf"
		if _, err := os.Stat(file); err == nil {
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: file, Type: "bind", Source: file, Options: []string{"bind", "ro"}})
		}
	}
	for _, u := range r.Ulimits {
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: u.Soft, Hard: u.Hard})
	}
	if r.ShmSize > 0 {
		resizeShm(spec, r.ShmSize)
	}
	for _, m := range r.Mounts {
		spec.Mounts = append(spec.Mounts, m.spec())
	}
	if r.Insecure {
		unconfine(spec)
		return spec, nil
	}
	filter, err := container.DefaultSeccomp(spec)
	if err != nil {
		return nil, err
	}
	spec.Linux.Seccomp = filter
	return spec, nil
}

// resizeShm sets the size of /dev/shm.
func resizeShm(spec *specs.Spec, size int64) {
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if m.Destination != "/dev/shm" {
			continue
		}
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "size=") })
		m.Options = append(m.Options, fmt.Sprintf("size=%d", size))
	}
}

// unconfine gives a RUN what --security=insecure promises: every capability and
// device, all of /proc and /sys, and no filter of system calls.
func unconfine(spec *specs.Spec) {
	every := container.AllCapabilities()
	p := spec.Process
	p.Capabilities = &specs.LinuxCapabilities{Bounding: every, Inheritable: every}
	if p.User.UID == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = every, every
	}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Type == "sysfs" || m.Type == "cgroup" {
			m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
}

// spec is the mount as the runtime has it.
func (m Mount) spec() specs.Mount {
	if m.Source == "" {
		options := []string{"nosuid", "nodev", "mode=1777"}
		if m.Size > 0 {
			options = append(options, fmt.Sprintf("size=%d", m.Size))
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	options := []string{"bind", "nosuid", "nodev"}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: options}
}
