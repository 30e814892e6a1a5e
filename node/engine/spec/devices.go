package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxDevices bounds the device nodes of one container; a directory of devices
// counts with everything in it.
const maxDevices = 4096

// devices are denied first and allowed one by one. The nodes that every
// container has (/dev/null and so on) are the runtime's business.
func devices(in Input, s *specs.Spec) error {
	rules := &s.Linux.Resources.Devices
	if in.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		*rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		if err := addDevices(s, "/dev", "/dev", ""); err != nil {
			return fmt.Errorf("devices of the host: %w", err)
		}
	} else {
		*rules = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	}
	for _, d := range in.Container.GetDevices() {
		perm := d.GetPermissions()
		if perm == "" {
			perm = "rwm"
		}
		if strings.Trim(perm, "rwm") != "" {
			return fmt.Errorf("device %q: permissions %q are not of r, w and m: %w", d.GetHostPath(), perm, ErrInvalid)
		}
		if err := addDevices(s, d.GetHostPath(), path.Join("/", d.GetContainerPath()), perm); err != nil {
			return fmt.Errorf("device %q: %w", d.GetHostPath(), err)
		}
	}
	return nil
}

// notDevices are what lies in the host's /dev without being one.
var notDevices = []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "tty"}

// addDevices adds the node at host, or every node below it. An empty perm adds
// no rule: all is allowed anyway.
func addDevices(s *specs.Spec, host, inside, perm string) error {
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	return filepath.WalkDir(host, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || (err == nil && p != host && slices.Contains(notDevices, e.Name()) && filepath.Dir(p) == "/dev") {
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		if e.Type()&fs.ModeDevice == 0 {
			if p == host {
				return fmt.Errorf("not a device: %w", ErrInvalid)
			}
			return nil
		}
		if len(s.Linux.Devices) >= maxDevices {
			return fmt.Errorf("more than %d devices: %w", maxDevices, ErrInvalid)
		}
		return addDevice(s, p, path.Join(inside, strings.TrimPrefix(p, host)), perm)
	})
}

func addDevice(s *specs.Spec, host, inside, perm string) error {
	var st unix.Stat_t
	if err := unix.Lstat(host, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: host, Err: err}
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	kind := "c"
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		kind = "b"
	}
	mode := os.FileMode(st.Mode & 0o777)
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: inside, Type: kind, Major: major, Minor: minor,
		FileMode: &mode, UID: &st.Uid, GID: &st.Gid})
	if perm != "" {
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
			specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: perm})
	}
	return nil
}
