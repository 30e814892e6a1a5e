package script

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
)

// storyEnv names, in the process that is in a namespace of its own, the story to
// tell; binEnv is where the programs are that stories use.
const (
	storyEnv = "SAMPAN_STORY"
	binEnv   = "SAMPAN_STORY_BIN"
)

// storyTimeout bounds one story; on an idle machine the longest takes half a minute,
// and this is for one that has much else to do.
const storyTimeout = 10 * time.Minute

// TestMain lets this program also be the sampan and kubectl that stories type,
// which only add the flags for the story's own directories.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sampan": func() {
			args := append([]string{}, os.Args[1:]...)
			if len(args) > 0 && args[0] != "kubectl" {
				args = append([]string{args[0], "--data-dir", os.Getenv("DATA")}, args[1:]...)
			}
			become(append([]string{os.Getenv("SAMPAN")}, args...))
		},
		"kubectl": func() { become(append([]string{os.Getenv("SAMPAN"), "kubectl"}, os.Args[1:]...)) },
	})
}

// become replaces this process by another program.
func become(argv []string) {
	err := syscall.Exec(argv[0], argv, os.Environ())
	fmt.Fprintf(os.Stderr, "%s: %v\n", argv[0], err)
	os.Exit(127)
}

// TestStories tells each story in a process of its own.
func TestStories(t *testing.T) {
	if os.Getenv(storyEnv) != "" {
		t.Skip("this process tells one story only")
	}
	if os.Geteuid() != 0 {
		t.Skip("a cluster needs namespaces, mounts and cgroups, which only root may make")
	}
	bin := programs(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tell(t, name, bin)
		})
	}
}

// tell starts this program again in a network namespace for the story.
func tell(t *testing.T, name, bin string) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestStory$", "-test.v", "-test.timeout="+storyTimeout.String())
	cmd.Env = append(os.Environ(), storyEnv+"="+name, binEnv+"="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if testing.Verbose() {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		return
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestStory tells the one story that this process is for.
func TestStory(t *testing.T) {
	name := os.Getenv(storyEnv)
	if name == "" {
		t.Skip("TestStories starts it, in a namespace of its own")
	}
	if err := uplink(); err != nil {
		t.Fatal("network of the story: ", err)
	}
	c := newCluster(t)
	t.Cleanup(func() { c.end(t) })
	t.Cleanup(func() { c.leave(t) })
	testscript.Run(t, testscript.Params{
		Files: []string{filepath.Join("testdata", name+".txt")},
		Cmds:  c.commands(),
		Setup: c.setup,
	})
}

// programs builds what the stories' containers run, into one directory, and puts
// sampan beside it.
func programs(t *testing.T) string {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sampan := os.Getenv("SAMPAN")
	if sampan == "" {
		sampan = filepath.Join(root, "bin", "sampan")
	}
	if _, err := os.Stat(sampan); err != nil {
		t.Fatalf("no program to test: %v; build it with make, or name it in SAMPAN", err)
	}
	bin := t.TempDir()
	if err := os.Symlink(sampan, filepath.Join(bin, "sampan")); err != nil {
		t.Fatal(err)
	}
	if helm := filepath.Join(root, "bin", "helm"); exists(helm) {
		if err := os.Symlink(helm, filepath.Join(bin, "helm")); err != nil {
			t.Fatal(err)
		}
	}
	for name, pkg := range map[string]string{"hello": "./examples/hello", "toolbox": "./test/script/toolbox"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(bin, name), pkg)
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	return bin
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// nodeAddress is the story's address in its network, and uplinkName the interface
// that has it. The network is one kept for documentation (RFC 5737).
const (
	nodeAddress = "198.51.100.10"
	gateway     = "198.51.100.1"
	uplinkName  = "up0"
	uplinkPeer  = "up1"
)

// uplink gives this namespace what any machine has: loopback, an address, and a
// default route, which here leads nowhere.
func uplink() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = uplinkName
	up := &netlink.Veth{LinkAttrs: attrs, PeerName: uplinkPeer}
	if err := netlink.LinkAdd(up); err != nil {
		return err
	}
	peer, err := netlink.LinkByName(uplinkPeer)
	if err != nil {
		return err
	}
	address := &net.IPNet{IP: net.ParseIP(nodeAddress).To4(), Mask: net.CIDRMask(24, 32)}
	return errors.Join(
		netlink.LinkSetUp(lo), netlink.LinkSetUp(up), netlink.LinkSetUp(peer),
		netlink.AddrAdd(up, &netlink.Addr{IPNet: address}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gateway)}),
	)
}
