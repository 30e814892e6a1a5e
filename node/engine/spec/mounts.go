package spec

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container/plan/overlay"
)

// mounts are the kernel's own file systems, the sandbox's files and the pod's
// volumes, in an order in which none hides another by accident: a mount comes
// after those above it. A volume takes the place of a default with the same
// path.
func mounts(in Input, s *specs.Spec) error {
	volumes, propagation, err := volumes(in)
	if err != nil {
		return err
	}
	s.Linux.RootfsPropagation = propagation
	taken := map[string]bool{}
	for _, m := range volumes {
		taken[m.Destination] = true
	}
	privileged := in.Container.GetLinux().GetSecurityContext().GetPrivileged()
	for _, m := range slices.Concat(kernelMounts(privileged), sandboxMounts(in)) {
		if !taken[m.Destination] {
			s.Mounts = append(s.Mounts, m)
		}
	}
	s.Mounts = append(s.Mounts, volumes...)
	slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a), depth(b)) })
	return nil
}

func depth(m specs.Mount) int {
	if m.Destination == "/" {
		return 0
	}
	return strings.Count(m.Destination, "/")
}

func kernelMounts(privileged bool) []specs.Mount {
	mode := "ro"
	if privileged {
		mode = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", mode}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", mode}},
	}
}

func sandboxMounts(in Input) []specs.Mount {
	mode := "rw"
	if in.Container.GetLinux().GetSecurityContext().GetReadonlyRootfs() {
		mode = "ro"
	}
	options := []string{"rbind", "rprivate", mode}
	if in.UserNamespace {
		options = append(options, "idmap") // the files are root's, on either side
	}
	var out []specs.Mount
	for dst, src := range map[string]string{"/etc/hostname": in.Files.Hostname, "/etc/hosts": in.Files.Hosts, "/etc/resolv.conf": in.Files.ResolvConf} {
		if src != "" {
			out = append(out, specs.Mount{Destination: dst, Type: "bind", Source: src, Options: slices.Clone(options)})
		}
	}
	slices.SortFunc(out, func(a, b specs.Mount) int { return cmp.Compare(a.Destination, b.Destination) })
	if in.Files.Shm != "" {
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Files.Shm, Options: []string{"rbind", "rprivate", "rw"}})
	}
	return out
}

// volumes are the mounts that the pod asks for, and the propagation that the
// root must have for theirs to work.
func volumes(in Input) (out []specs.Mount, propagation string, err error) {
	for i, m := range in.Container.GetMounts() {
		dst := path.Join("/", m.GetContainerPath())
		if dst == "/" {
			return nil, "", fmt.Errorf("mount of %q on the root directory: %w", m.GetHostPath(), ErrInvalid)
		}
		if m.GetImage().GetImage() != "" {
			v, err := imageVolume(m, dst, in.ImageMounts[i], in.Nothing)
			if err != nil {
				return nil, "", err
			}
			if in.UserNamespace {
				v.Options = append(v.Options, "idmap")
			}
			out = append(out, v)
			continue
		}
		if _, err := os.Stat(m.GetHostPath()); err != nil {
			return nil, "", fmt.Errorf("mount on %q: %w", dst, err)
		}
		options, err := volumeOptions(m)
		if err != nil {
			return nil, "", fmt.Errorf("mount on %q: %w", dst, err)
		}
		switch {
		case m.GetPropagation() == rt.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			propagation = "rshared"
		case m.GetPropagation() == rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER && propagation == "":
			propagation = "rslave"
		}
		out = append(out, specs.Mount{Destination: dst, Type: "bind", Source: m.GetHostPath(), Options: options,
			UIDMappings: IDMappings(m.GetUidMappings()), GIDMappings: IDMappings(m.GetGidMappings())})
	}
	return out, propagation, nil
}

func volumeOptions(m *rt.Mount) ([]string, error) {
	options := []string{"rbind"}
	switch m.GetPropagation() {
	case rt.MountPropagation_PROPAGATION_PRIVATE:
		options = append(options, "rprivate")
	case rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		options = append(options, "rslave")
	case rt.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		options = append(options, "rshared")
	default:
		return nil, fmt.Errorf("propagation %v is unknown: %w", m.GetPropagation(), ErrInvalid)
	}
	for _, o := range m.GetMountOptions() {
		if !slices.Contains([]string{"noexec", "nodev", "nosuid", "exec", "dev", "suid", "noatime", "relatime", "nodiratime"}, o) {
			return nil, fmt.Errorf("mount option %q is not allowed: %w", o, ErrInvalid)
		}
		options = append(options, o)
	}
	switch {
	case m.GetRecursiveReadOnly() && (!m.GetReadonly() || m.GetPropagation() != rt.MountPropagation_PROPAGATION_PRIVATE):
		return nil, fmt.Errorf("recursive read-only needs read-only and private propagation: %w", ErrInvalid)
	case m.GetRecursiveReadOnly():
		return append(options, "rro"), nil
	case m.GetReadonly():
		return append(options, "ro"), nil
	}
	return append(options, "rw"), nil
}

// imageVolume shows an image's content or a directory of it, read-only: one layer
// as it is, several united.
func imageVolume(m *rt.Mount, dst string, lower []string, nothing string) (specs.Mount, error) {
	switch {
	case m.GetHostPath() != "":
		return specs.Mount{}, fmt.Errorf("mount on %q has an image and a host path: %w", dst, ErrInvalid)
	case len(lower) == 0:
		return specs.Mount{}, fmt.Errorf("mount on %q: image %q is not prepared", dst, m.GetImage().GetImage())
	}
	lower, err := part(lower, m.GetImageSubPath())
	if err != nil {
		return specs.Mount{}, fmt.Errorf("mount on %q: %w", dst, err)
	}
	if len(lower) == 1 && nothing != "" { // an overlay wants two, and no other mount has a label of its own
		lower = append(slices.Clip(lower), nothing)
	}
	if len(lower) == 1 {
		return specs.Mount{Destination: dst, Type: "bind", Source: lower[0], Options: []string{"bind", "rprivate", "ro"}}, nil
	}
	options := []string{"ro"}
	for _, dir := range lower { // one by one: a single string has a limit
		options = append(options, overlay.Layer+dir)
	}
	return specs.Mount{Destination: dst, Type: "overlay", Source: "overlay", Options: options}, nil
}

// IDMappings are the CRI's in the OCI's words.
func IDMappings(in []*rt.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{HostID: m.GetHostId(), ContainerID: m.GetContainerId(), Size: m.GetLength()})
	}
	return out
}
