package cdi

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// annotationPrefix begins the keys of annotations whose values name devices,
// separated by commas: the way before the CRI had a field.
const annotationPrefix = "cdi.k8s.io/"

// Requested are the devices that a container asks for, each once: by name, and
// after those by annotation.
func Requested(named []string, annotations map[string]string) ([]string, error) {
	var out []string
	add := func(name string) error {
		if !Qualified(name) {
			return fmt.Errorf("invalid CDI device name %q: vendor/class=name is wanted", name)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
		return nil
	}
	for _, name := range named {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(key, annotationPrefix) {
			continue
		}
		for name := range strings.SplitSeq(annotations[key], ",") {
			if err := add(name); err != nil {
				return nil, fmt.Errorf("annotation %q: %w", key, err)
			}
		}
	}
	return out, nil
}

// Apply edits s for each device named: what a file says for all its devices once,
// before the first of them. When any device is not there s is left as it was.
func (d *Devices) Apply(s *specs.Spec, names []string) error {
	var missing []string
	for _, name := range names {
		if _, ok := d.byName[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		err := fmt.Errorf("unresolvable CDI devices %s", strings.Join(missing, ", "))
		return errors.Join(append([]error{err}, d.problems...)...)
	}
	seen := map[*File]bool{}
	for _, name := range names {
		f := d.byName[name]
		if !seen[f.file] {
			seen[f.file] = true
			if err := f.file.ContainerEdits.apply(s); err != nil {
				return fmt.Errorf("CDI kind %q: %w", f.file.Kind, err)
			}
		}
		if err := f.device.ContainerEdits.apply(s); err != nil {
			return fmt.Errorf("CDI device %q: %w", name, err)
		}
	}
	slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int { return cmp.Compare(depth(a), depth(b)) })
	return nil
}

func depth(m specs.Mount) int { return len(strings.Split(filepath.Clean(m.Destination), "/")) }

func (e *Edits) apply(s *specs.Spec) error {
	if e.IntelRdt != nil {
		return errors.New("changes of Intel RDT are not supported")
	}
	if len(e.NetDevices) > 0 {
		return fmt.Errorf("network device %q: network devices are not supported", e.NetDevices[0].HostInterfaceName)
	}
	for _, kv := range e.Env {
		setEnv(s.Process, kv)
	}
	for i := range e.DeviceNodes {
		if err := e.DeviceNodes[i].apply(s); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(have specs.Mount) bool {
			return filepath.Clean(have.Destination) == filepath.Clean(m.ContainerPath)
		})
		s.Mounts = append(s.Mounts, specs.Mount{Source: m.HostPath, Destination: m.ContainerPath, Type: m.Type, Options: slices.Clone(m.Options)})
	}
	for _, h := range e.Hooks {
		h.apply(s)
	}
	for _, gid := range e.AdditionalGIDs {
		if gid != 0 && !slices.Contains(s.Process.User.AdditionalGids, gid) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, gid)
		}
	}
	return nil
}

func setEnv(p *specs.Process, kv string) {
	name := kv[:strings.IndexByte(kv, '=')+1]
	i := slices.IndexFunc(p.Env, func(have string) bool { return strings.HasPrefix(have, name) })
	if i < 0 {
		p.Env = append(p.Env, kv)
		return
	}
	p.Env[i] = kv
}

// apply makes the node, as the host has it where the file says nothing, and lets
// the container use it.
func (n DeviceNode) apply(s *specs.Spec) error {
	if err := n.complete(); err != nil {
		return err
	}
	uid, gid := n.UID, n.GID
	if id := s.Process.User.UID; uid == nil && id > 0 {
		uid = &id
	}
	if id := s.Process.User.GID; gid == nil && id > 0 {
		gid = &id
	}
	s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(have specs.LinuxDevice) bool { return have.Path == n.Path })
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: n.Path, Type: n.Type, Major: n.Major, Minor: n.Minor,
		FileMode: n.FileMode, UID: uid, GID: gid})
	if n.Type == "p" {
		return nil
	}
	access := n.Permissions
	if access == "" {
		access = "rwm"
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: access})
	return nil
}

func (n *DeviceNode) complete() error {
	if n.HostPath == "" {
		n.HostPath = n.Path
	}
	if n.Type != "" && (n.Major != 0 || n.Type == "p") {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(n.HostPath, &st); err != nil {
		return fmt.Errorf("device node %q: %w", n.Path, &os.PathError{Op: "stat", Path: n.HostPath, Err: err})
	}
	kind := map[uint32]string{unix.S_IFBLK: "b", unix.S_IFCHR: "c", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
	switch {
	case kind == "":
		return fmt.Errorf("device node %q: %q is not a device", n.Path, n.HostPath)
	case n.Type != "" && n.Type != kind && !(n.Type == "u" && kind == "c"):
		return fmt.Errorf("device node %q: host type mismatch (expected %q, got %q)", n.Path, n.Type, kind)
	}
	n.Type = kind
	if n.Major == 0 && kind != "p" {
		n.Major, n.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if n.FileMode == nil {
		mode := os.FileMode(st.Mode & 0o777)
		n.FileMode = &mode
	}
	return nil
}

func (h *Hook) apply(s *specs.Spec) {
	if s.Hooks == nil {
		s.Hooks = &specs.Hooks{}
	}
	hook := specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout}
	list := map[string]*[]specs.Hook{
		"prestart": &s.Hooks.Prestart, "createRuntime": &s.Hooks.CreateRuntime, "createContainer": &s.Hooks.CreateContainer, //nolint:staticcheck // prestart is deprecated, and used
		"startContainer": &s.Hooks.StartContainer, "poststart": &s.Hooks.Poststart, "poststop": &s.Hooks.Poststop,
	}[h.HookName]
	*list = append(*list, hook)
}
