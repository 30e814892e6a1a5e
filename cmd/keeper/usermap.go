package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/overlay"
)

// A container with a user namespace is put together by the host's root, and
// enters the namespace last of all: that needs a process with one thread (see
// calls.go). Its files are shown to it through id-mapped mounts, so that images
// and volumes stay as they are on disk.

const attrIdmap = 0x00100000

// mapMount gives a detached mount the mapping that the plan says, if any.
func (s *stager) mapMount(fd int, m *plan.Mount) error {
	switch {
	case !m.IDMap || m.UserNS == "" && s.user < 0:
		return nil
	case m.UserNS == "":
		return idmap(fd, s.user, m.IDMapTree)
	}
	users, err := syscall.Open(m.UserNS, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: m.UserNS, Err: err}
	}
	defer syscall.Close(users)
	return idmap(fd, users, m.IDMapTree)
}

// idmap gives a detached mount, or the tree of mounts that it is, the mapping of
// a user namespace.
func idmap(fd, users int, tree bool) error {
	if err := mountSetattr(fd, tree, mountAttr{Set: attrIdmap, UserNS: uint64(users)}); err != nil {
		return fmt.Errorf("id-mapped mount (the filesystem may not support it): %w", err)
	}
	return nil
}

// actAs makes the files that this thread creates those of the container's root
// (or with zeros the host's): an id-mapped filesystem has no room for others. The
// capabilities that go with the change are taken back.
func actAs(uid, gid int) error {
	own, err := getCaps()
	if err != nil {
		return err
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
	return setCaps(own, own, 0)
}

// hostUID is the host's id of a user of the container. Namespaces of more than
// one range are taken by their first, which is root's.
func (s *stager) hostUID(uid int) int { return s.p.Process.RootUID + uid }

// ownedData gives what a mount makes to the container's root instead of the host's.
func (s *stager) ownedData(m *plan.Mount) string {
	p := &s.p.Process
	if p.UserNS == "" || m.Type != "tmpfs" && m.Type != "devpts" {
		return m.Data
	}
	var out []string
	uid, gid := false, false
	for _, o := range strings.Split(m.Data, ",") {
		key, value, _ := strings.Cut(o, "=")
		n, err := strconv.Atoi(value)
		switch {
		case key == "uid" && err == nil:
			uid, o = true, "uid="+strconv.Itoa(p.RootUID+n)
		case key == "gid" && err == nil:
			gid, o = true, "gid="+strconv.Itoa(p.RootGID+n)
		}
		if o != "" {
			out = append(out, o)
		}
	}
	if m.Type == "tmpfs" && !uid {
		out = append(out, "uid="+strconv.Itoa(p.RootUID))
	}
	if m.Type == "tmpfs" && !gid {
		out = append(out, "gid="+strconv.Itoa(p.RootGID))
	}
	return strings.Join(out, ",")
}

// mappedOverlay makes an overlay of id-mapped layers. They need names for as long
// as it takes to mount it: on a tmpfs that is gone again before the root is
// attached in its place.
func (s *stager) mappedOverlay(r plan.Root) (int, error) {
	tmp, err := newMount("tmpfs", "tmpfs", "mode=700", 0)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(tmp)
	at, err := syscall.Open(r.Mountpoint, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: r.Mountpoint, Err: err}
	}
	defer syscall.Close(at)
	if err := attach(tmp, at); err != nil {
		return -1, err
	}
	defer func() { _ = syscall.Unmount(r.Mountpoint, syscall.MNT_DETACH) }()
	layers := make([]string, len(r.Lower))
	for i, l := range r.Lower {
		if layers[i], err = s.mappedLayer(l, filepath.Join(r.Mountpoint, strconv.Itoa(i))); err != nil {
			return -1, err
		}
	}
	r.Lower = layers
	if r.Upper != "" {
		parent := commonParent(r.Upper, r.Work)
		top, err := s.mappedLayer(parent, filepath.Join(r.Mountpoint, "top"))
		if err != nil {
			return -1, err
		}
		r.Upper, r.Work = top+r.Upper[len(parent):], top+r.Work[len(parent):]
	}
	return overlayMount(&r)
}

// layeredVolume makes a volume that is an overlay of layers (an image's) in the same
// ways. The root lies at the mount point by then, and is back when the names are gone.
func (s *stager) layeredVolume(m *plan.Mount) (int, error) {
	r := plan.Root{Mountpoint: s.p.Root.Mountpoint, Named: s.p.Root.Named, Context: m.Context}
	for _, o := range strings.Split(m.Data, ",") {
		layer, ok := strings.CutPrefix(o, overlay.Layer)
		if !ok {
			return -1, fmt.Errorf("option %q beside the layers of an overlay: %w", o, syscall.EINVAL)
		}
		r.Lower = append(r.Lower, layer)
	}
	mount := overlayMount
	if m.IDMap && s.user >= 0 {
		mount = func(r *plan.Root) (int, error) { return s.mappedOverlay(*r) }
	}
	fd, err := mount(&r)
	if err != nil {
		return -1, err
	}
	if err := mountSetattr(fd, false, mountAttr{Set: attrsOf(m.Flags)}); err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *stager) mappedLayer(dir, name string) (string, error) {
	if err := os.Mkdir(name, 0o700); err != nil {
		return "", err
	}
	fd, err := openTree(atFdcwd, dir, openTreeClone)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	if err := idmap(fd, s.user, false); err != nil {
		return "", fmt.Errorf("layer %q: %w", dir, err)
	}
	to, err := syscall.Open(name, oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(to)
	return name, attach(fd, to)
}

// commonParent is the deepest directory above both.
func commonParent(a, b string) string {
	dir := filepath.Dir(a)
	for dir != "/" && !strings.HasPrefix(b, dir+"/") {
		dir = filepath.Dir(dir)
	}
	return strings.TrimSuffix(dir, "/")
}
