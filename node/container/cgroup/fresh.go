package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	devices "github.com/opencontainers/cgroups/devices/config"
	v1 "github.com/opencontainers/cgroups/fs"
	"golang.org/x/sys/unix"
)

// A container's group is new, and there nothing of what was set before has to be
// found out, compared and changed step by step: the library, which does that, needs
// two hundred system calls for it. What is not new, or not as usual, is the library's.

// makeDirs makes the group in those hierarchies of v1 that pick picks. It says in
// which of them, by their keys, it was there before: to whom a group belongs is the
// caller's to know.
func (g *Group) makeDirs(pick func(key string) bool) (old map[string]bool, err error) {
	old = map[string]bool{}
	last, was := "", false
	for _, h := range hierarchies() {
		dir := g.paths[h.key]
		if dir == "" || !pick(h.key) {
			continue
		}
		if dir != last { // cpu and cpuacct may be one
			was, err = makeDir(dir)
			if err != nil && !optional(h.key) {
				return nil, err
			}
			if err != nil {
				delete(g.paths, h.key)
				continue
			}
		}
		last, old[h.key] = dir, was
	}
	return old, nil
}

// optional says that a container can do without the hierarchy, which limits nothing.
func optional(key string) bool { return key == systemdKey || key == unifiedKey || key == "misc" }

// makeDir makes a directory, and those above it only when they are missing.
func makeDir(dir string) (was bool, err error) {
	err = unix.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(dir), 0o755); err == nil {
			err = unix.Mkdir(dir, 0o755)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return false, nil
}

// Prepare makes as much of the group as a process needs to be born there: Join tells
// how. True says that the rest is still to be made, by Create, before the process
// writes to the files that Join names. Before anything is made, named is called.
func (g *Group) Prepare(named func() error) (more bool, err error) {
	if g.paths != nil && g.paths[unifiedKey] == "" {
		return true, nil
	}
	if err := named(); err != nil {
		return false, err
	}
	if g.paths == nil {
		return false, g.Create()
	}
	if _, err := g.makeDirs(func(key string) bool { return key == unifiedKey }); err != nil {
		return false, fmt.Errorf("create cgroup %q: %w", g.path, err)
	}
	return true, nil
}

// joinV1 is Join, of a group that may have been prepared only. What a machine has but
// lets nobody make groups in is known once Create has tried.
func (g *Group) joinV1() (dir string, tasks []string) {
	last := ""
	for _, h := range hierarchies() {
		d := g.paths[h.key]
		if h.key == unifiedKey {
			dir = d
		} else if d != "" && d != last {
			tasks = append(tasks, d+"/tasks")
		}
		last = d
	}
	return dir, tasks
}

// createV1 makes the group in all hierarchies and gives it the limits in r.
func (g *Group) createV1(r *cgroups.Resources) error {
	old, err := g.makeDirs(func(string) bool { return true })
	if err != nil {
		return err
	}
	if dir := g.paths["cpuset"]; dir != "" && (old["cpuset"] || !inheritCPUs(dir, r)) {
		if err := (&v1.CpusetGroup{}).Apply(dir, r, -1); err != nil {
			return err
		}
	}
	if dir := g.paths["cpu"]; dir != "" && (r.CpuRtPeriod != 0 || r.CpuRtRuntime != 0) {
		if err := (&v1.CpuGroup{}).Apply(dir, r, -1); err != nil {
			return err
		}
	}
	rest := *r
	if !old["devices"] && allowDevices(g.paths["devices"], r) {
		rest.SkipDevices, rest.Devices = true, nil
	}
	if dir := g.paths["pids"]; dir != "" && r.PidsLimit != nil && *r.PidsLimit > 0 {
		if err := writeFile(filepath.Join(dir, PidsMax), strconv.FormatInt(*r.PidsLimit, 10)); err != nil {
			return err
		}
		rest.PidsLimit = nil
	}
	rest.CpusetCpus, rest.CpusetMems = "", "" // they had to be there first
	skipped := rest
	skipped.SkipDevices = false
	if rest.SkipDevices && reflect.ValueOf(skipped).IsZero() {
		return nil
	}
	return g.m.Set(&rest)
}

// inheritCPUs gives a new group of the cpuset controller, which begins without any,
// the processors and memory nodes of r, or those of its parent. It says whether it
// could.
func inheritCPUs(dir string, r *cgroups.Resources) bool {
	for _, f := range [...]struct{ name, value string }{{"/cpuset.cpus", r.CpusetCpus}, {"/cpuset.mems", r.CpusetMems}} {
		value := f.value
		if value == "" {
			value = readLine(filepath.Dir(dir) + f.name)
		}
		if value == "" || writeFile(dir+f.name, value) != nil {
			return false
		}
	}
	return true
}

// allowDevices gives a new group of the devices controller rules that deny all but
// some. It says whether it could: the library knows the others.
func allowDevices(dir string, r *cgroups.Resources) bool {
	rules := r.Devices
	if dir == "" || r.SkipDevices || len(rules) == 0 || rules[0].Allow || rules[0].Type != devices.WildcardDevice {
		return false
	}
	for _, d := range rules[1:] {
		if !d.Allow || d.Type == devices.WildcardDevice {
			return false
		}
	}
	if writeFile(dir+"/devices.deny", "a") != nil {
		return false
	}
	fd, err := unix.Open(dir+"/devices.allow", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	for _, d := range rules[1:] {
		if _, err := unix.Write(fd, []byte(d.CgroupString())); err != nil {
			return false
		}
	}
	return true
}

// writeFile writes to a file of a group, without the poller: these files never wait.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// maxLine is longer than the list of processors of any machine.
const maxLine = 4096

// readLine is what a file of a group says, or nothing.
func readLine(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	b := make([]byte, maxLine)
	n, _ := unix.Read(fd, b)
	return strings.TrimSpace(string(b[:max(n, 0)]))
}

// TryRemove removes a group that nobody is in and that has nothing below it. It
// says whether it is gone; else some of its directories may be.
func (g *Group) TryRemove() bool {
	for _, dir := range g.m.GetPaths() {
		if err := syscall.Rmdir(dir); dir != "" && err != nil && !errors.Is(err, syscall.ENOENT) {
			return false
		}
	}
	return true
}
