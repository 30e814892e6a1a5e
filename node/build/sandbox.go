package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container"
)

// Sandbox is a Runner on a container runtime: each RUN is a container with pids,
// mounts and host name of its own, Docker's default capabilities and, unless the
// instruction says --network=none, the host's network.
type Sandbox struct {
	Runtime *container.Runtime
}

// runCapabilities are Docker's defaults: what package managers need, and less
// than root has.
var runCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// Run implements Runner.
func (s Sandbox) Run(ctx context.Context, r Run) (err error) {
	id := "build-" + rand.Text()
	err = s.Runtime.Create(ctx, container.CreateConfig{
		ID: id, Spec: runSpec(r), Rootfs: container.Rootfs{Lower: r.Lower, Upper: r.Upper, Work: r.Work},
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

type output func([]byte)

func (o output) Write(p []byte) (int, error) {
	o(p)
	return len(p), nil
}

// runSpec is the OCI runtime specification of a RUN.
func runSpec(r Run) *specs.Spec {
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	if r.NetworkNone {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	} else {
		for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
			if _, err := os.Stat(file); err == nil {
				mounts = append(mounts, specs.Mount{Destination: file, Type: "bind", Source: file, Options: []string{"bind", "ro"}})
			}
		}
	}
	return &specs.Spec{
		Version: specs.Version, Hostname: "build", Root: &specs.Root{}, Mounts: mounts,
		Process: &specs.Process{
			Args: r.Args, Env: r.Env, Cwd: r.WorkingDir, User: specs.User{UID: r.UID, GID: r.GID},
			Capabilities: &specs.LinuxCapabilities{Bounding: runCapabilities, Effective: runCapabilities, Permitted: runCapabilities},
		},
		Linux: &specs.Linux{
			Namespaces:    namespaces,
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
