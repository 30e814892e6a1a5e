package script

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
)

// left lists everything of the cluster that is on the machine: what a search
// cannot tell is an entry too.
func (c *cluster) left() []string {
	var found []string
	for what, list := range map[string]func() ([]string, error){
		"mount": c.mounts, "interface": interfaces, "nft table": tables, "cgroup": c.cgroups, "process": c.processes,
	} {
		items, err := list()
		if err != nil {
			items = append(items, "cannot be told: "+err.Error())
		}
		for _, item := range items {
			found = append(found, what+" "+item)
		}
	}
	for _, dir := range []string{c.run, c.data} {
		if _, err := os.Lstat(dir); err == nil {
			found = append(found, "directory "+dir)
		}
	}
	slices.Sort(found)
	return found
}

// mounts are those below the cluster's directories.
func (c *cluster) mounts() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], c.data) || strings.HasPrefix(fields[4], c.run) {
			found = append(found, fields[4])
		}
	}
	return found, err
}

// interfaces are those of this namespace that a story did not begin with.
func interfaces() ([]string, error) {
	all, err := net.Interfaces()
	var found []string
	for _, i := range all {
		if !slices.Contains([]string{"lo", uplinkName, uplinkPeer, "ifb0", "ifb1"}, i.Name) {
			found = append(found, i.Name)
		}
	}
	return found, err
}

// tables are the packet filter's in this namespace.
func tables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListTables()
	var found []string
	for _, t := range all {
		found = append(found, fmt.Sprintf("%d/%s", t.Family, t.Name))
	}
	return found, err
}

// cgroups are the cluster's groups in all hierarchies.
func (c *cluster) cgroups() ([]string, error) {
	var found []string
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + c.cgroup)
	for _, root := range append(roots, "/sys/fs/cgroup/"+c.cgroup) {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append(found, path)
			}
			return nil // gone meanwhile, or never there
		})
	}
	return found, err
}

// process is one that belongs to the cluster.
type process struct {
	pid  int
	argv string
	// contained says that it is in the cluster's cgroup.
	contained bool
}

// processes are those in the cluster's cgroup, those that name its directories,
// and those that were started in this network namespace and are not the test's.
func (c *cluster) processes() ([]string, error) {
	all, err := c.running()
	var found []string
	for _, p := range all {
		found = append(found, fmt.Sprintf("%d: %s", p.pid, p.argv))
	}
	return found, err
}

func (c *cluster) running() ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(raw) == 0 { // gone, a thread of the kernel, or a zombie
			continue
		}
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup")) // gone: no groups
		p := process{pid: pid, argv: string(bytes.ReplaceAll(bytes.TrimRight(raw, "\x00"), []byte{0}, []byte(" ")))}
		p.contained = bytes.Contains(groups, []byte("/"+c.cgroup+"/"))
		if p.contained || strings.Contains(p.argv, c.data) || strings.Contains(p.argv, c.run) || c.inNamespace(dir) {
			found = append(found, p)
		}
	}
	return found, nil
}

func (c *cluster) inNamespace(proc string) bool {
	ours, err := os.Readlink("/proc/thread-self/ns/net")
	theirs, err2 := os.Readlink(filepath.Join(proc, "ns", "net"))
	return err == nil && err2 == nil && ours == theirs
}
