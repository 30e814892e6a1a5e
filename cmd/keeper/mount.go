package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/overlay"
)

const inRoot = resolveInRoot | resolveNoMagiclinks

// buildRoot mounts the root and everything in it. Each target is found from the
// root's descriptor, never by a path of the host, and each mount is made
// detached and then moved onto the descriptor of its target.
func (s *stager) buildRoot() (failed error) {
	r := &s.p.Root
	propagation := r.Propagation
	if propagation == 0 {
		propagation = syscall.MS_SLAVE | syscall.MS_REC
	}
	if err := propagate(propagation); err != nil {
		return err
	}
	if s.user >= 0 {
		if err := actAs(s.p.Process.RootUID, s.p.Process.RootGID); err != nil {
			return fmt.Errorf("act as the container's root: %w", err)
		}
		defer func() { failed = errors.Join(failed, actAs(0, 0)) }()
	}
	peers, err := s.peers(propagation)
	if err != nil {
		return err
	}
	if err := secludeParent(r.Mountpoint, r.Parent()); err != nil {
		return err
	}
	if err := s.placeRoot(); err != nil {
		return err
	}
	for i := range s.p.Mounts {
		m := &s.p.Mounts[i]
		if err := s.mount(m, peers[i]); err != nil {
			return fmt.Errorf("mount %q on %q: %w", m.Source, m.Target, err)
		}
	}
	if err := s.devices(); err != nil {
		return err
	}
	return s.makeCwd()
}

// seclude keeps what is mounted from now on from spreading to the host.
func (s *stager) seclude(propagation uintptr) error {
	if err := propagate(propagation); err != nil {
		return err
	}
	return secludeParent(s.p.Root.Mountpoint, s.p.Root.Parent())
}

func propagate(how uintptr) error {
	if err := syscall.Mount("", "/", "", how, ""); err != nil {
		return fmt.Errorf("set the propagation of /: %w", err)
	}
	return nil
}

// detached is what is to be mounted.
type detached struct {
	fd  int
	dir bool
}

// peers takes what is bound from the host while it still shares mounts with it, if it
// shall, by its place in the list: the mount that holds the root will not, and volumes
// mostly lie on that one. What lies in the root is there only later.
func (s *stager) peers(propagation uintptr) (map[int]*detached, error) {
	if propagation&(syscall.MS_SHARED|syscall.MS_SLAVE) == 0 {
		return nil, nil
	}
	found := map[int]*detached{}
	for i := range s.p.Mounts {
		m := &s.p.Mounts[i]
		if !m.Bind || m.Remount || strings.HasPrefix(m.Source+"/", s.p.Root.Mountpoint+"/") {
			continue
		}
		from, err := s.source(m)
		if err != nil {
			return nil, fmt.Errorf("mount %q on %q: %w", m.Source, m.Target, err)
		}
		found[i] = from
	}
	return found, nil
}

// placeRoot mounts the root at its place.
func (s *stager) placeRoot() error {
	fd, err := s.rootMount()
	if err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	s.root = fd
	path := s.p.Root.Mountpoint
	at, err := syscall.Open(path, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(at)
	if err := attach(fd, at); err != nil {
		return fmt.Errorf("attach rootfs at %q: %w", path, err)
	}
	return nil
}

// secludeParent keeps the root mount from spreading to the host: it finds the
// mount that holds path and gives it another propagation.
func secludeParent(path string, propagation uintptr) error {
	for p := path; ; p = p[:max(strings.LastIndexByte(p, '/'), 1)] {
		err := syscall.Mount("", p, "", propagation, "")
		if err == nil || !errors.Is(err, syscall.EINVAL) || p == "/" {
			return err
		}
		if strings.LastIndexByte(p, '/') == 0 && len(p) > 1 {
			p = "/x" // the next turn is "/"
		}
	}
}

// rootMount makes the root detached.
func (s *stager) rootMount() (int, error) {
	r := &s.p.Root
	if r.Path != "" {
		fd, err := openTree(atFdcwd, r.Path, openTreeClone|atRecursive)
		if err == nil && s.user >= 0 && !r.Mapped {
			err = idmap(fd, s.user, false)
		}
		return fd, err
	}
	if s.user >= 0 {
		return s.mappedOverlay(*r)
	}
	return overlayMount(r)
}

// overlayMount makes a detached overlay mount.
func overlayMount(r *plan.Root) (int, error) {
	if r.Named {
		return namedOverlay(r)
	}
	options := make([]string, 0, len(r.Lower)+2)
	for _, l := range r.Lower {
		options = append(options, overlay.Layer+l)
	}
	if r.Upper != "" {
		options = append(options, "upperdir="+r.Upper, "workdir="+r.Work)
	}
	return newMountOptions("overlay", "overlay", inContext(options, r.Context), 0)
}

func layersOf(r *plan.Root) overlay.Layers {
	return overlay.Layers{Lower: r.Lower, Upper: r.Upper, Work: r.Work, Context: r.Context}
}

// inContext adds the label that everything on a new file system has. It is one option,
// though there are commas in it.
func inContext(options []string, label string) []string {
	if label == "" {
		return options
	}
	return append(options, "context="+label)
}

// namedOverlay mounts over the mount point, whatever is there, and takes the name
// away again.
func namedOverlay(r *plan.Root) (int, error) {
	if err := layersOf(r).Mount(r.Mountpoint, 0); err != nil {
		return -1, err
	}
	defer func() { _ = syscall.Unmount(r.Mountpoint, syscall.MNT_DETACH) }()
	return openTree(atFdcwd, r.Mountpoint, openTreeClone)
}

func newMount(fstype, source, data string, attrs uint64) (int, error) {
	return newMountOptions(fstype, source, split(data), attrs)
}

func split(data string) []string {
	if data == "" {
		return nil
	}
	return strings.Split(data, ",")
}

// newMountOptions makes a detached mount of a filesystem. The kernel's own words
// about what is wrong with an option become part of the error.
func newMountOptions(fstype, source string, options []string, attrs uint64) (int, error) {
	ctx, _, e := syscall.Syscall(sysFsopen, cstr(fstype), fsopenCloexec, 0)
	if e != 0 {
		return -1, fmt.Errorf("filesystem %q: %w", fstype, e)
	}
	defer syscall.Close(int(ctx))
	if source == "" {
		source = fstype
	}
	for _, o := range append([]string{"source=" + source}, options...) {
		key, value, has := strings.Cut(o, "=")
		if layer, ok := strings.CutPrefix(o, overlay.Layer); ok {
			key, value = "lowerdir+", layer
		}
		cmd, val := uintptr(fsconfigSetString), cstr(value)
		if !has {
			cmd, val = fsconfigSetFlag, 0
		}
		if _, _, e := syscall.Syscall6(sysFsconfig, ctx, cmd, cstr(key), val, 0, 0); e != 0 {
			return -1, fmt.Errorf("filesystem %q: option %q: %w%s", fstype, o, e, reasons(int(ctx)))
		}
	}
	if _, _, e := syscall.Syscall6(sysFsconfig, ctx, fsconfigCreate, 0, 0, 0, 0); e != 0 {
		return -1, fmt.Errorf("filesystem %q: %w%s", fstype, e, reasons(int(ctx)))
	}
	fd, _, e := syscall.Syscall(sysFsmount, ctx, fsmountCloexec, uintptr(attrs))
	if e != 0 {
		return -1, fmt.Errorf("filesystem %q: fsmount: %w%s", fstype, e, reasons(int(ctx)))
	}
	return int(fd), nil
}

// reasons reads the messages of a filesystem context.
func reasons(ctx int) string {
	var out strings.Builder
	var b [512]byte
	for range 8 {
		n, err := syscall.Read(ctx, b[:])
		if err != nil || n <= 2 {
			break
		}
		out.WriteString(" (" + strings.TrimSpace(string(b[2:n])) + ")")
	}
	return out.String()
}

// mount makes one mount of the list; from is what peers has taken for it, or nil.
func (s *stager) mount(m *plan.Mount, from *detached) (err error) {
	if m.Remount {
		return s.remount(m)
	}
	if from == nil {
		if from, err = s.source(m); err != nil {
			return err
		}
	}
	defer syscall.Close(from.fd)
	to, err := s.target(m.Target, from.dir, resolveFor(m))
	if errors.Is(err, syscall.ELOOP) && resolveFor(m) != inRoot {
		return fmt.Errorf("filesystem %q must be mounted on ordinary directory, with no symbolic link on the way: %w", m.Type, err)
	}
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	defer syscall.Close(to)
	if err := attach(from.fd, to); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	for _, p := range m.Propagation {
		attr := mountAttr{Propagation: uint64(p &^ syscall.MS_REC)}
		if err := mountSetattr(from.fd, p&syscall.MS_REC != 0, attr); err != nil {
			return fmt.Errorf("propagation %#x: %w", p, err)
		}
	}
	return nil
}

// resolveFor is how the target of a mount is found. What is masked of proc and sysfs is
// found by name, later: a link in the image could lead past them, into a volume where
// another container changes what is there in the meantime (CVE-2019-19921).
func resolveFor(m *plan.Mount) uint64 {
	if !m.Bind && (m.Type == "proc" || m.Type == "sysfs") {
		return inRoot | resolveNoSymlinks
	}
	return inRoot
}

func (s *stager) remount(m *plan.Mount) error {
	fd, err := openat2(s.root, m.Target, oPath, 0, inRoot)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return mountSetattr(fd, false, mountAttr{Set: attrsOf(m.Flags)})
}

// source makes the detached mount and tells whether it is a directory.
func (s *stager) source(m *plan.Mount) (from *detached, err error) {
	var fd int
	if !m.Bind {
		switch {
		case m.Type == "proc":
			fd, err = newMount("proc", "proc", m.Data, attrsOf(m.Flags))
		case m.Type == "overlay" && strings.HasPrefix(m.Data, overlay.Layer):
			fd, err = s.layeredVolume(m)
		case m.Type == "tmpfs":
			fd, err = s.tmpfs(m)
		default:
			fd, err = newMountOptions(m.Type, m.Source, inContext(split(s.ownedData(m)), m.Context), attrsOf(m.Flags))
		}
		if err == nil && m.RootLabel != "" {
			s.labelRoot(fd, m.RootLabel)
		}
		return &detached{fd, true}, err
	}
	flags := uint(openTreeClone)
	if m.Recursive {
		flags |= atRecursive
	}
	if fd, err = openTree(atFdcwd, m.Source, flags); err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, err
	}
	attr := mountAttr{Set: attrsOf(m.Flags), Clear: attrsOf(m.Clear)}
	if (attr.Set|attr.Clear)&attrAtime != 0 { // one field, which changes as a whole
		attr.Clear |= attrAtime
	}
	if attr.Set|attr.Clear != 0 {
		if err := mountSetattr(fd, false, attr); err != nil {
			return nil, fmt.Errorf("attributes: %w", err)
		}
	}
	if err := s.mapMount(fd, m); err != nil {
		return nil, err
	}
	if m.SetAll|m.ClearAll != 0 {
		if err := mountSetattr(fd, true, mountAttr{Set: m.SetAll, Clear: m.ClearAll}); err != nil {
			return nil, fmt.Errorf("recursive attributes: %w", err)
		}
	}
	return &detached{fd, st.Mode&syscall.S_IFMT == syscall.S_IFDIR}, nil
}

// Mount attributes of the new interface.
const (
	attrRdonly     = 0x01
	attrNosuid     = 0x02
	attrNodev      = 0x04
	attrNoexec     = 0x08
	attrAtime      = 0x70
	attrNoatime    = 0x10
	attrStrict     = 0x20
	attrNodiratime = 0x80
	attrNosymfollw = 0x200000
)

// attrsOf translates MS_* to MOUNT_ATTR_*.
func attrsOf(ms uintptr) uint64 {
	const msNosymfollow = 256
	var out uint64
	for _, p := range []struct {
		ms   uintptr
		attr uint64
	}{
		{syscall.MS_RDONLY, attrRdonly}, {syscall.MS_NOSUID, attrNosuid}, {syscall.MS_NODEV, attrNodev},
		{syscall.MS_NOEXEC, attrNoexec}, {syscall.MS_NOATIME, attrNoatime}, {syscall.MS_STRICTATIME, attrStrict},
		{syscall.MS_NODIRATIME, attrNodiratime}, {msNosymfollow, attrNosymfollw},
	} {
		if ms&p.ms != 0 {
			out |= p.attr
		}
	}
	return out
}

// ignoreChildren makes the kernel reap our children.
func ignoreChildren() {
	const sigIgn = 1
	act := struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}{handler: sigIgn}
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0)
}
