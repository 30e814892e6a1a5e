package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// nfsPlugin is upstream's name for directories of an NFS server.
const nfsPlugin = "nfs"

// export is a server's directory and where it shall be mounted.
type export struct {
	corev1.NFSVolumeSource
	dir     string
	options []string
}

// nfs mounts a server's directory through the kernel. A server that doesn't
// answer holds up nobody past ctx: the mount goes on, and the next call waits
// for it again.
func (v *Volumes) nfs(ctx context.Context, e export) error {
	if yes, err := isMount(e.dir); err == nil && yes {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	address, err := resolve(ctx, e.Server)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.dir, 0o750); err != nil {
		return fmt.Errorf("create mount point: %w", err)
	}
	return v.slow.do(ctx, e.dir, func() error { return e.mount(address) })
}

func resolve(ctx context.Context, server string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(strings.Trim(server, "[]")); err == nil {
		return a, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", server)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find NFS server %q: %w", server, err)
	}
	return found[0].Unmap(), nil
}

// nfsVersions are tried in order when the options name none, as mount.nfs does.
var nfsVersions = []string{"4.2", "4.1", "4.0", "3"}

// mount asks the kernel. It may take minutes.
func (e export) mount(address netip.Addr) error {
	server := e.Server
	if strings.Contains(server, ":") && !strings.HasPrefix(server, "[") {
		server = "[" + server + "]"
	}
	flags, data, versions := e.parse(address)
	var err error
	for _, version := range versions {
		all := data
		if version != "" {
			all = append(slices.Clone(data), "vers="+version)
		}
		err = unix.Mount(server+":"+e.Path, e.dir, "nfs", flags, strings.Join(all, ","))
		if !errors.Is(err, unix.EPROTONOSUPPORT) && !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		err = errors.New("the node's kernel has no support for NFS")
	case errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("the kernel refuses the mount options %q: %w", strings.Join(e.options, ","), err)
	}
	return errors.Join(fmt.Errorf("mount %s:%s: %w", server, e.Path, err), os.Remove(e.dir))
}

// nfsFlags are the options that are the kernel's own for every file system.
var nfsFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
	"nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	"rw": 0, "defaults": 0, "": 0, "suid": 0, "dev": 0, "exec": 0, "async": 0, "auto": 0, "noauto": 0, "_netdev": 0, "nofail": 0, "bg": 0, "fg": 0,
}

// parse divides options into the kernel's flags and those that are NFS's, and
// says which versions to try: "" for what the options name.
func (e export) parse(address netip.Addr) (flags uintptr, data, versions []string) {
	versions = nfsVersions
	if e.ReadOnly {
		flags = unix.MS_RDONLY
	}
	for _, list := range e.options {
		for o := range strings.SplitSeq(list, ",") {
			key, _, _ := strings.Cut(o, "=")
			flag, ours := nfsFlags[o]
			flags |= flag
			switch {
			case ours, key == "addr", key == "retry": // the address is the server's; the agent tries again anyway
				continue
			case key == "vers", key == "nfsvers", key == "v2", key == "v3", strings.HasPrefix(key, "v4"):
				versions = []string{""}
			}
			data = append(data, o)
		}
	}
	return flags, append(data, "addr="+address.String()), versions
}

// slow are the mounts under way that may take long, by mount point.
type slow struct {
	// late is what somebody is told who has waited long enough.
	late   string
	mu     sync.Mutex
	points map[string]*attempt
}

// attempt is one mount; err is set when done closes.
type attempt struct {
	done chan struct{}
	err  error
}

// do waits for the mount at a point, which it begins unless it is under way.
func (s *slow) do(ctx context.Context, point string, mount func() error) error {
	s.mu.Lock()
	a := s.points[point]
	if a == nil {
		if s.points == nil {
			s.points = map[string]*attempt{}
		}
		a = &attempt{done: make(chan struct{})}
		s.points[point] = a
		go func() {
			a.err = mount()
			s.mu.Lock()
			delete(s.points, point)
			s.mu.Unlock()
			close(a.done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", s.late, context.Cause(ctx))
	}
}

// under is a point below dir whose mount is under way, "" for none.
func (s *slow) under(dir string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for point := range s.points {
		if strings.HasPrefix(point, dir+"/") {
			return point
		}
	}
	return ""
}
