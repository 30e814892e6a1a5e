package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sampan-dev/sampan/internal/apparmor"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// The images of a checkpoint say who its processes are, what they may do, and what is
// mounted where; and whoever may make a pod may name an image of such. What criu has made
// of them is judged while it stands still: it has no more than a program of the
// container could have come to, or it does not run.

// ErrExceeds says that a checkpoint's processes have what the container must not have.
var ErrExceeds = errors.New("the checkpoint has what this container must not have")

// judge looks at every thread of a restored container. It is frozen for the while: to be
// stopped is not enough, since a timer that comes out of the images may have it go on.
func (r *Runtime) judge(c *container, p *plan.Plan, cfg *CreateConfig) (failed error) {
	sb, err := r.Sandbox(cfg.SandboxID)
	if err != nil {
		return err
	}
	if err := sb.rename(); err != nil {
		return err
	}
	thaw, err := c.standStill()
	defer func() {
		if failed == nil {
			c.rec.Unjudged = false
			failed = c.save() // before it goes on: until then the next runtime ends it
		}
		if failed != nil { // it ends before it can go on
			failed = errors.Join(failed, c.group.Signal(unix.SIGKILL))
		}
		failed = errors.Join(failed, thaw())
	}()
	if err != nil {
		return err
	}
	pids, err := c.group.Pids()
	if err != nil {
		return err
	}
	if !slices.Contains(pids, c.rec.PID) {
		return fmt.Errorf("%w: its first process is not in its cgroup", ErrExceeds)
	}
	if err := judgeFilters(cfg.Restore.Images, p.Process.Seccomp); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := judgeNamespaces(pid, c.rec.PID, sb, p.Unshare&unix.CLONE_NEWCGROUP != 0); err != nil {
			return err
		}
		if err := judgeThreads(pid, &p.Process); err != nil {
			return err
		}
		if err := judgeProfile(pid, cfg.Spec.Process.ApparmorProfile); err != nil {
			return err
		}
	}
	parent, err := c.parent()
	if err != nil {
		return err
	}
	placed := filepath.Join("/proc", strconv.Itoa(parent), "root", p.Root.Mountpoint) // as its parent has mounted it
	if err := c.judgeFiles(p, placed, pids); err != nil {
		return err
	}
	return level(pids, parent, &p.Process)
}

// judgeNamespaces wants a process in those of the sandbox and of the container alone.
func judgeNamespaces(pid, first int, sb *Sandbox, ownCgroups bool) error {
	want := map[string]string{"user": ourNamespaces + "user", "net": ourNamespaces + "net", "ipc": ourNamespaces + "ipc", "uts": ourNamespaces + "uts",
		"mnt": fmt.Sprintf("/proc/%d/ns/mnt", first), "pid": fmt.Sprintf("/proc/%d/ns/pid", first), "cgroup": fmt.Sprintf("/proc/%d/ns/cgroup", first)}
	for name := range sb.pinned() {
		want[name] = filepath.Join(sb.dir, name)
	}
	for name, path := range want {
		same, err := sameFile(fmt.Sprintf("/proc/%d/ns/%s", pid, name), path)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: a %s namespace of another", ErrExceeds, name)
		}
	}
	own := []string{"mnt", "pid"}
	if ownCgroups {
		own = append(own, "cgroup")
	}
	for _, name := range own {
		host, err := sameFile(fmt.Sprintf("/proc/%d/ns/%s", pid, name), ourNamespaces+name)
		if err != nil {
			return err
		}
		if host {
			return fmt.Errorf("%w: the host's %s namespace", ErrExceeds, name)
		}
	}
	return nil
}

func sameFile(a, b string) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Stat(a, &x); err != nil {
		return false, &os.PathError{Op: "stat", Path: a, Err: err}
	}
	if err := unix.Stat(b, &y); err != nil {
		return false, &os.PathError{Op: "stat", Path: b, Err: err}
	}
	return x.Ino == y.Ino && x.Dev == y.Dev, nil
}

func judgeThreads(pid int, may *plan.Process) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		text, err := os.ReadFile(filepath.Join(dir, t.Name(), "status"))
		if err != nil {
			return err
		}
		if why := exceeds(string(text), may); why != "" {
			return fmt.Errorf("%w: %s", ErrExceeds, why)
		}
	}
	return nil
}

// judgeProfile wants a process under the AppArmor profile of the container.
func judgeProfile(pid int, profile string) error {
	if profile == "" || profile == "unconfined" || !apparmor.Enabled() {
		return nil
	}
	text, err := readSmall(fmt.Sprintf("/proc/%d/attr/apparmor/current", pid))
	if errors.Is(err, os.ErrNotExist) {
		text, err = readSmall(fmt.Sprintf("/proc/%d/attr/current", pid))
	}
	if err != nil {
		return err
	}
	if is, _, _ := strings.Cut(strings.TrimSpace(text), " "); is != profile {
		return fmt.Errorf("%w: AppArmor profile %q, not %q", ErrExceeds, is, profile)
	}
	return nil
}

// exceeds says what a thread, by its status in /proc, has that a program of the container
// could not come to. Without no_new_privs that may be any capability in the bounding set
// and any user and group: by a program in the image that is another's for whoever executes it.
func exceeds(status string, may *plan.Process) string {
	have := map[string]string{}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		have[key] = strings.TrimSpace(value)
	}
	if may.NoNewPrivs && have["NoNewPrivs"] != "1" {
		return "no_new_privs is not set"
	}
	if len(may.Seccomp) > 0 && have["Seccomp"] != "2" {
		return "no seccomp filter"
	}
	if may.Caps == nil {
		return ""
	}
	limit := reach(may)
	if users := strings.Fields(have["Uid"]); may.NoNewPrivs && limit&(1<<unix.CAP_SETUID) == 0 && !among(users, may.UID) {
		return fmt.Sprintf("users %s, not %d", have["Uid"], may.UID)
	}
	groups := strings.Fields(have["Gid"] + " " + have["Groups"])
	if own := append(slices.Clone(may.Groups), may.GID); may.NoNewPrivs && limit&(1<<unix.CAP_SETGID) == 0 && !among(groups, own...) {
		return fmt.Sprintf("groups %s %s, more than %d", have["Gid"], have["Groups"], own)
	}
	for key, limit := range map[string]uint64{"CapBnd": may.Caps.Bounding, "CapPrm": limit, "CapEff": limit, "CapInh": limit, "CapAmb": limit} {
		set, err := strconv.ParseUint(have[key], 16, 64)
		if err != nil || set&^limit != 0 {
			return fmt.Sprintf("capabilities %s %s, more than %016x", key, have[key], limit)
		}
	}
	return ""
}

// reach are the capabilities that a program of the container could come to. To a process
// that keeps the keeper's (no Caps) it is all of them.
func reach(may *plan.Process) uint64 {
	switch {
	case may.Caps == nil:
		return ^uint64(0)
	case may.NoNewPrivs:
		return may.Caps.Permitted | may.Caps.Effective | may.Caps.Inheritable | may.Caps.Ambient
	}
	return may.Caps.Bounding
}

// among says whether there are IDs, and none but those.
func among(ids []string, those ...int) bool {
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool {
		n, err := strconv.Atoi(id)
		return err != nil || !slices.Contains(those, n)
	})
}

// maxFilters bounds the file of the seccomp filters: a filter has 32 KB at most.
const maxFilters = 64 << 20

// judgeFilters wants the container's own filter below whatever filters the processes have.
func judgeFilters(images string, want []byte) error {
	if len(want) == 0 {
		return nil
	}
	f, err := os.Open(filepath.Join(images, "seccomp.img"))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: no seccomp filter", ErrExceeds)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := readWhole(f, maxFilters)
	if err != nil {
		return err
	}
	ok, err := onlyOver(b, want)
	if err != nil {
		return fmt.Errorf("%w: seccomp.img: %w", ErrExceeds, err)
	}
	if !ok {
		return fmt.Errorf("%w: a seccomp filter that is not the one of this container; what was checkpointed by another runtime, or "+
			"by a version with another default profile, is restored without a profile alone (seccompProfile: Unconfined)", ErrExceeds)
	}
	return nil
}

// onlyOver says whether every chain of filters in criu's file begins with the one that is
// wanted. The file is two magic numbers, a length, and a message with a list: each filter
// has its program (1), and the number of the one before it (2) unless it is the first.
func onlyOver(b, want []byte) (bool, error) {
	const head = 12
	if len(b) < head || uint64(binary.LittleEndian.Uint32(b[8:])) > uint64(len(b)-head) {
		return false, errors.New("is cut short")
	}
	list := b[head : head+int(binary.LittleEndian.Uint32(b[8:]))]
	found := false
	for len(list) > 0 {
		number, kind, n := protowire.ConsumeTag(list)
		if n < 0 || number != 1 || kind != protowire.BytesType {
			return false, errors.New("is no list of filters")
		}
		list = list[n:]
		entry, n := protowire.ConsumeBytes(list)
		if n < 0 {
			return false, protowire.ParseError(n)
		}
		list = list[n:]
		program, first, err := filterOf(entry)
		if err != nil {
			return false, err
		}
		if first && !bytes.Equal(program, want) {
			return false, nil
		}
		found = found || first
	}
	return found, nil
}

func filterOf(entry []byte) (program []byte, first bool, err error) {
	first = true
	for len(entry) > 0 {
		number, kind, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return nil, false, protowire.ParseError(n)
		}
		entry = entry[n:]
		if n = protowire.ConsumeFieldValue(number, kind, entry); n < 0 {
			return nil, false, protowire.ParseError(n)
		}
		switch {
		case number == 1 && kind == protowire.BytesType:
			program, _ = protowire.ConsumeBytes(entry)
		case number == 2:
			first = false
		}
		entry = entry[n:]
	}
	return program, first, nil
}
