package criu

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Common are the options that a dump and its restore share.
type Common struct {
	// Images is the directory of the images, Work that of logs and statistics.
	Images, Work string
	// Established writes down, and brings back, TCP connections that stand: both ends
	// must be told to wait. Close leaves them out, and brings them back as closed.
	Established, Close bool
	// UnixSockets allows sockets whose other end is outside; ShellJob a session and a
	// terminal from outside.
	UnixSockets, ShellJob bool
	FileLocks             bool
	// Cgroups is what criu does about cgroups (ignore, soft, full, strict ...); empty is
	// ignore: whoever runs containers makes their cgroups.
	Cgroups string
	// External are things of outside that the processes have: "mnt[/etc/hosts]:label".
	External []string
	// AutoDedup drops from earlier images what a later one has; EmptyNet leaves a network
	// namespace's content to others.
	AutoDedup, EmptyNet bool
	// More are arguments that are passed on as they are.
	More []string
}

func (c *Common) args(verb, log string) []string {
	mode := c.Cgroups
	if mode == "" {
		mode = "ignore"
	}
	a := []string{verb, "--images-dir", c.Images, "--work-dir", c.Work, "--log-file", log, "-v4", "--manage-cgroups=" + mode}
	for _, o := range []struct {
		on  bool
		arg string
	}{
		{c.Established, "--tcp-established"},
		{c.Close, "--tcp-close"},
		{c.UnixSockets, "--ext-unix-sk"},
		{c.ShellJob, "--shell-job"},
		{c.FileLocks, "--file-locks"},
		{c.AutoDedup, "--auto-dedup"},
	} {
		if o.on {
			a = append(a, o.arg)
		}
	}
	if c.EmptyNet {
		a = append(a, "--empty-ns", "net")
	}
	for _, e := range c.External {
		a = append(a, "--external", e)
	}
	return a
}

// Dump is one dump of a tree of processes.
type Dump struct {
	Common
	PID int
	// LeaveRunning lets the processes go on afterwards; else they are gone.
	LeaveRunning bool
	// Freezer is the directory of the cgroup whose processes are frozen for the while;
	// empty stops each by itself.
	Freezer string
	// LinkRemap allows deleted files that have other names, by making links of them.
	LinkRemap, SkipInFlight bool
	// Pre writes memory alone, and lets the processes go on; Parent is the directory of
	// an earlier Pre, from Images.
	Pre    bool
	Parent string
	// Descriptors are those of the first process, for who restores it; see DescriptorsFile.
	Descriptors []string
}

// Args are the arguments of criu.
func (d *Dump) Args() []string {
	verb := "dump"
	if d.Pre {
		verb = "pre-dump"
	}
	a := append(d.args(verb, DumpLog), "--tree", strconv.Itoa(d.PID))
	for _, o := range []struct {
		on  bool
		arg string
	}{
		{d.LeaveRunning && !d.Pre, "--leave-running"},
		{d.LinkRemap, "--link-remap"},
		{d.SkipInFlight, "--skip-in-flight"},
		{d.Pre || d.Parent != "", "--track-mem"},
	} {
		if o.on {
			a = append(a, o.arg)
		}
	}
	if d.Freezer != "" {
		a = append(a, "--freeze-cgroup", d.Freezer)
	}
	if d.Parent != "" {
		a = append(a, "--prev-images-dir", d.Parent)
	}
	return append(a, d.More...)
}

// describe writes DescriptorsFile.
func (d *Dump) describe() error {
	if d.Pre {
		return nil
	}
	b, err := json.Marshal(d.Descriptors)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Images, DescriptorsFile), b, 0o600)
}

// Restore is one restoration.
type Restore struct {
	Common
	// Root is where the root of the processes is mounted.
	Root string
	// Inherit are descriptors that criu has, by number, and what they take the place of:
	// "fd[3]:pipe:[77]".
	Inherit []string
	// Join are namespaces to be in: "uts:/path".
	Join []string
	// PidFile gets the first process's number.
	PidFile string
	// Stopped leaves the processes stopped, until a signal or a timer of theirs has them
	// go on.
	Stopped bool
	// LSM is "apparmor:profile".
	LSM string
}

// Args are the arguments of criu.
func (r *Restore) Args() []string {
	a := append(r.args("restore", RestoreLog), "--restore-detached", "--root", r.Root, "--pidfile", r.PidFile)
	if r.Stopped {
		a = append(a, "--leave-stopped")
	}
	for _, i := range r.Inherit {
		a = append(a, "--inherit-fd", i)
	}
	for _, j := range r.Join {
		a = append(a, "--join-ns", j)
	}
	if r.LSM != "" {
		a = append(a, "--lsm-profile", r.LSM)
	}
	return append(a, r.More...)
}

// maxDescriptors bounds a DescriptorsFile: it has three short texts.
const maxDescriptors = 4 << 10

// Descriptors reads what a dump has said of the first three descriptors, as far as they
// came from outside; the others are empty. A directory of images without the file has
// none from outside.
func Descriptors(images string) ([3]string, error) {
	var out [3]string
	path := filepath.Join(images, DescriptorsFile)
	st, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxDescriptors {
		return out, fmt.Errorf("%q is no list of descriptors", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return out, err
	}
	var all []string
	if err := json.Unmarshal(b, &all); err != nil {
		return out, fmt.Errorf("%q is no list of descriptors: %w", path, err)
	}
	for i, d := range all {
		if i < len(out) && (strings.HasPrefix(d, "pipe:[") || strings.HasPrefix(d, "file[")) {
			out[i] = d
		}
	}
	return out, nil
}
