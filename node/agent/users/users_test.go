package users

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, root string) *Ranges {
	t.Helper()
	r, err := Open(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	// Whatever users this machine has.
	r.first, r.end = Unit, 4*Unit
	return r
}

func first(t *testing.T, r *Ranges, uid string) uint32 {
	t.Helper()
	u, err := r.Of(uid)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Uids) != 1 || len(u.Gids) != 1 || u.Uids[0].String() != u.Gids[0].String() || u.Uids[0].Length != Unit || u.Uids[0].ContainerId != 0 {
		t.Fatalf("got %v", u)
	}
	return u.Uids[0].HostId
}

func TestRangesAreOnePodsAndKept(t *testing.T) {
	root := t.TempDir()
	r := open(t, root)
	if a, b := first(t, r, "a"), first(t, r, "b"); a != Unit || b != 2*Unit {
		t.Errorf("got %d and %d", a, b)
	}
	if again := first(t, r, "a"); again != Unit {
		t.Errorf("asked again: %d", again)
	}
	r = open(t, root) // another agent
	if c, b := first(t, r, "c"), first(t, r, "b"); c != 3*Unit || b != 2*Unit {
		t.Errorf("after a restart: %d and %d", c, b)
	}
	if _, err := r.Of("d"); err == nil || !strings.Contains(err.Error(), "could not find an empty slot") {
		t.Errorf("a fourth of three: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	if d := first(t, r, "d"); d != Unit {
		t.Errorf("what a pod left behind is not given again: %d", d)
	}
}

// A range that is not what was given is nobody's to use.
func TestForgedRanges(t *testing.T) {
	root := t.TempDir()
	for uid, text := range map[string]string{
		"host":    `{"uidMappings":[{"hostId":0,"containerId":0,"length":65536}],"gidMappings":[{"hostId":0,"containerId":0,"length":65536}]}`,
		"odd":     `{"uidMappings":[{"hostId":65537,"containerId":0,"length":65536}],"gidMappings":[{"hostId":65537,"containerId":0,"length":65536}]}`,
		"long":    `{"uidMappings":[{"hostId":65536,"containerId":0,"length":131072}],"gidMappings":[{"hostId":65536,"containerId":0,"length":131072}]}`,
		"far":     `{"uidMappings":[{"hostId":262144,"containerId":0,"length":65536}],"gidMappings":[{"hostId":262144,"containerId":0,"length":65536}]}`,
		"unalike": `{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":131072,"containerId":0,"length":65536}]}`,
		"none":    `{}`,
		"torn":    `{"uidMap`,
	} {
		if err := os.Mkdir(filepath.Join(root, uid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, uid, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, root)
	for _, uid := range []string{"host", "odd", "long", "far", "unalike", "none", "torn"} {
		if u, err := r.Of(uid); err == nil {
			t.Errorf("%s was taken: %v", uid, u)
		}
	}
	if a := first(t, r, "a"); a != Unit {
		t.Errorf("got %d", a)
	}
}

func TestSubordinateIDs(t *testing.T) {
	for said, want := range map[string]string{
		"0: kubelet 65536 7208960\n":                         "",
		"0: kubelet 65536 6553600":                           "not enough to support 110 pods",
		"0: kubelet 0 7208960":                               "must be greater or equal to 65536",
		"0: kubelet 65537 7208960":                           "65537 is not a multiple of 65536",
		"0: kubelet 65536 7208961":                           "length 7208961 is not a multiple",
		"0: kubelet 65536 7208960\n1: kubelet 9000000 65536": "one line of four words",
		"":                   "one line of four words",
		"0: kubelet x 65536": "invalid syntax",
	} {
		r := &Ranges{cfg: Config{Length: Unit, Pods: 110}}
		err := r.restrict(said)
		if want == "" && (err != nil || r.first != Unit || r.end != Unit+7208960) {
			t.Errorf("%q: %v, from %d to %d", said, err, r.first, r.end)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", said, err, want)
		}
	}
}

// TestNoUsers: a machine that has no /etc/passwd, as the image of one program, has no user
// with IDs of its own either.
func TestNoUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("hides /etc in a mount namespace: needs root")
	}
	done := make(chan error, 2)
	go func() { // its thread, with the namespace, ends with it
		runtime.LockOSThread()
		done <- errors.Join(
			unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/etc", "tmpfs", 0, ""))
		_, err := Open(Config{Root: t.TempDir()})
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
