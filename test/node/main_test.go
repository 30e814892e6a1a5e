// Package node_test examines the whole node: the real agent on the real engine
// with real containers, under the real API server and its controllers. What it
// promises of containment is tried as an attack (contain_*_test.go), the rest as a
// user meets it. It needs root, and skips without.
//
// Everything happens in network and mount namespaces of the test's own and below a
// cgroup of its own, and whoever started it removes what is left of these, so that
// the machine is as before whatever becomes of the test.
package node_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// inside names, in the environment of the process that runs the tests, the
// directory it may write to.
const inside = "SAMPAN_TEST_NODE"

// built are the programs that the tests run.
var built struct {
	keeper   []byte
	intruder []byte
}

// home is where everything of the test is, and its name that of its cgroup.
var home string

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run()) // every test skips
	}
	if home = os.Getenv(inside); home == "" {
		os.Exit(apart())
	}
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// apart runs the tests in namespaces of their own and clears away what they leave.
func apart() int {
	dir, err := os.MkdirTemp("", "spn")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer sweep(dir)
	c := exec.Command("/proc/self/exe", append([]string{"-test.parallel=6"}, os.Args[1:]...)...) // they wait more than they work
	c.Env = append(os.Environ(), inside+"="+dir)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		return 1
	}
	return 0
}

// groups are the test's cgroups, the deepest first.
func groups(dir string) []string {
	var found []string
	tops, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir))
	for _, top := range append(tops, "/sys/fs/cgroup/"+filepath.Base(dir)) {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append([]string{path}, found...)
			}
			return nil
		})
	}
	return found
}

// sweep ends every process in the test's cgroups, and removes those and its files.
func sweep(dir string) {
	deadline := time.Now().Add(30 * time.Second)
	for left := groups(dir); len(left) > 0 && time.Now().Before(deadline); left = groups(dir) {
		for _, g := range left {
			procs, _ := os.ReadFile(filepath.Join(g, "cgroup.procs"))
			for _, field := range strings.Fields(string(procs)) {
				if pid, err := strconv.Atoi(field); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			_ = os.Remove(g)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// furnish compiles the programs and gives the namespaces what a machine has.
func furnish() error {
	for out, pkg := range map[*[]byte]string{&built.keeper: "../../cmd/keeper", &built.intruder: "./testdata/intruder"} {
		file := filepath.Join(home, filepath.Base(pkg))
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", pkg, err, b)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*out = data
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	// An address of the machine that is not loopback's, as nodes have one.
	addr, err := netlink.ParseAddr(nodeIP + "/32")
	if err != nil {
		return err
	}
	return netlink.AddrAdd(lo, addr)
}

// nodeIP is the machine's address in the test's network namespace.
const nodeIP = "192.0.2.10"
