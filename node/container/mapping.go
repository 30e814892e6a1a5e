package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxOwnMappings bounds how many mappings the mounts of a container have that are not
// its own: each is a user namespace, and takes a process to make.
const maxOwnMappings = 100

func (m *IDMappings) equal(other *IDMappings) bool {
	return m != nil && slices.Equal(m.UID, other.UID) && slices.Equal(m.GID, other.GID)
}

// ownMappings are the mappings of mounts that are not the container's, each once.
func ownMappings(mounts []specs.Mount, container *IDMappings) ([]IDMappings, error) {
	var out []IDMappings
	for _, m := range mounts {
		if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
			continue
		}
		if len(m.UIDMappings) == 0 || len(m.GIDMappings) == 0 {
			return nil, fmt.Errorf("mount on %q: uidMappings and gidMappings go together", m.Destination)
		}
		maps := IDMappings{UID: m.UIDMappings, GID: m.GIDMappings}
		if container.equal(&maps) || slices.ContainsFunc(out, func(o IDMappings) bool { return o.equal(&maps) }) {
			continue
		}
		if out = append(out, maps); len(out) > maxOwnMappings {
			return nil, fmt.Errorf("mounts have more than %d different id mappings", maxOwnMappings)
		}
	}
	return out, nil
}

// mapMount decides which mapping a mount is shown with: its own, pinned where pin says,
// or the container's. What has none to be shown with is refused, as the OCI runtime
// specification wants it (config.md, idmap): files would be somebody else's.
func mapMount(pm *plan.Mount, m *specs.Mount, container *IDMappings, pin func(int) string, own []IDMappings) error {
	if !pm.IDMap {
		return nil
	}
	if len(m.UIDMappings) == 0 {
		if container == nil {
			return fmt.Errorf("mount on %q: has no id mappings, and there is no user namespace to have them from", m.Destination)
		}
		return nil
	}
	maps := IDMappings{UID: m.UIDMappings, GID: m.GIDMappings}
	if container.equal(&maps) {
		return nil
	}
	if !pm.Bind {
		return fmt.Errorf("mount on %q: id mappings other than the container's are for bind mounts", m.Destination)
	}
	pm.UserNS = pin(slices.IndexFunc(own, func(o IDMappings) bool { return o.equal(&maps) }))
	return nil
}

// mountPin is where the user namespace with a mapping of mounts is pinned.
func (r *Runtime) mountPin(id string, i int) string {
	return mountPin(r.runDir(id), i)
}

func mountPin(dir string, i int) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%d", userPin, i))
}

// pinUsers pins the user namespaces that a container does not find: its own, and those
// of its mounts, which release takes away again.
func (r *Runtime) pinUsers(id string, spec *specs.Spec, sb *Sandbox, p *plan.Plan) (release func(), err error) {
	maps := mappingsOf(spec, sb)
	if p.Process.UserNS == filepath.Join(r.runDir(id), userPin) {
		if err := r.pinUserNS(maps, p.Process.UserNS); err != nil {
			return nil, err
		}
	} else if p.Process.UserNS != "" {
		if err := isUserNS(p.Process.UserNS); err != nil {
			return nil, err
		}
	}
	return r.pinMappings(id, spec.Mounts, maps)
}

// isUserNS refuses what is no user namespace: it is joined as late as the program begins,
// and create is to find the fault (config-linux.md, "Namespaces").
func isUserNS(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("user namespace: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWUSER {
		return fmt.Errorf("%q is not a user namespace", path)
	}
	return nil
}

// pinMappings pins the mappings that mounts have of their own. A mount that is there
// needs its namespace's name no more: release takes them away again.
func (r *Runtime) pinMappings(id string, mounts []specs.Mount, container *IDMappings) (release func(), err error) {
	own, err := ownMappings(mounts, container)
	if err != nil {
		return nil, err
	}
	for i := range own {
		if err := r.pinUserNS(&own[i], r.mountPin(id, i)); err != nil {
			unpinMappings(r.runDir(id))
			return nil, fmt.Errorf("id mappings of mounts: %w", err)
		}
	}
	if len(own) == 0 {
		return func() {}, nil
	}
	return func() { unpinMappings(r.runDir(id)) }, nil
}

// unpinMappings takes away the names that pinMappings gave in dir, the last first: one
// that is interrupted leaves the others where the next looks for them.
func unpinMappings(dir string) {
	n := 0
	for n <= maxOwnMappings {
		if _, err := os.Lstat(mountPin(dir, n)); errors.Is(err, os.ErrNotExist) {
			break
		}
		n++
	}
	for i := n - 1; i >= 0; i-- {
		_ = unix.Unmount(mountPin(dir, i), unix.MNT_DETACH) // it may not have been mounted
		_ = os.Remove(mountPin(dir, i))                     // with the directory, at last
	}
}
