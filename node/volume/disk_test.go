package volume

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// needTools skips where the host has not what makes file systems.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := program(name); err != nil {
			t.Skipf("this machine has no %s: %v", name, err)
		}
	}
}

// An empty disk gets a file system, is mounted in each pod that claims it with its
// options, keeps what was written there, and is let go with the last pod.
func TestDiskVolume(t *testing.T) {
	needTools(t, "blkid", "mkfs.ext4")
	b, s, _ := claimBench(t)
	l := newLoop(t, "")
	link := filepath.Join(t.TempDir(), "by-name")
	if err := os.Symlink(l.path, link); err != nil {
		t.Fatal(err)
	}
	_, pv := s.bind("disk", localSource(link))
	pv.Spec.MountOptions = []string{"noatime", "errors=remount-ro"}
	first := podWith(claimVolume("d", "disk", false))
	gid := int64(4321)
	first.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &gid}
	dir := b.prepare(t, first).Paths["d"]
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC || st.Flags&unix.ST_NOATIME == 0 || st.Flags&unix.ST_RDONLY != 0 {
		t.Errorf("mounted %+v, %v", st, err)
	}
	if g, mode := group(t, dir); g != 4321 || !groupMayUse(mode) {
		t.Errorf("its group is %d, its mode %s", g, mode)
	}
	if err := os.WriteFile(dir+"/file", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Another pod only reads, beside the first.
	second := podWith(claimVolume("d", "disk", true))
	second.UID = "u2"
	there := b.prepare(t, second).Paths["d"]
	if read(t, there+"/file") != "kept" {
		t.Error("the second pod reads something else")
	}
	if err := os.WriteFile(there+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only claim: %v", err)
	}
	if err := os.WriteFile(dir+"/y", nil, 0o600); err != nil {
		t.Errorf("the first pod can't write any more: %v", err)
	}
	for _, uid := range []string{"u1", "u2"} {
		if err := b.Remove(uid); err != nil {
			t.Fatal(err)
		}
	}
	if busy, err := diskMounted(l.path); busy || err != nil {
		t.Errorf("the disk is mounted still, %v", err)
	}
	if dir := b.prepare(t, first).Paths["d"]; read(t, dir+"/file") != "kept" {
		t.Error("what was written is not there the next time")
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
}

// What a disk holds is never formatted over, whatever the volume says, and a disk
// that only may be read is not formatted at all.
func TestDiskThatIsNotEmpty(t *testing.T) {
	needTools(t, "blkid", "mkfs.ext4", "mkfs.ext2", "fsck")
	b, s, _ := claimBench(t)
	swap, parts := "\x00", make([]byte, 1<<12)
	swap = strings.Repeat(swap, 4086) + "SWAPSPACE2"
	swap = swap[:1024] + "\x01\x00\x00\x00\xff\x00\x00\x00\x00\x00\x00\x00" + swap[1036:]
	copy(parts[446:], "\x00\x01\x01\x00\x83\x01\x02\x00\x01\x00\x00\x00\x10\x00\x00\x00")
	copy(parts[510:], "\x55\xaa")
	other := "ext2"
	for name, c := range map[string]struct {
		text     string
		kind     *string
		readOnly bool
		want     string
	}{
		"swap":       {text: swap, want: "the disk holds swap"},
		"partitions": {text: string(parts), want: "holds unknown data, probably partitions"},
		"empty":      {readOnly: true, want: "as we are manipulating it in read-only mode"},
		"strange":    {kind: new(string), want: "mkfs.nofs"},
		"climbs":     {kind: new(string), want: "is no name of a file system"},
	} {
		switch name {
		case "strange":
			*c.kind = "nofs"
		case "climbs":
			*c.kind = "../../../bin/true"
		}
		l := newLoop(t, c.text)
		before, err := os.ReadFile(l.path)
		if err != nil {
			t.Fatal(err)
		}
		_, pv := s.bind(name, localSource(l.path))
		pv.Spec.Local.FSType = c.kind
		err = b.failure(t, podWith(claimVolume("d", name, c.readOnly)))
		if !strings.HasPrefix(err.Error(), `MountVolume.MountDevice failed for volume "pv-`+name+`" : `) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(l.path); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: the disk was written to, %v", name, err)
		}
		if busy, err := diskMounted(l.path); busy || err != nil {
			t.Errorf("%s: the disk is mounted, %v", name, err)
		}
	}
	// One that was cut off in the middle of something is mended before it is used.
	l := newLoop(t, "")
	if out, err := exec.Command("mkfs.ext2", "-q", l.path).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext2: %v: %s", err, out)
	}
	f, err := os.OpenFile(l.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const state = 1024 + 58 // of the superblock: 1 is clean
	if _, err := f.WriteAt([]byte{0}, state); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, pv := s.bind("dirty", localSource(l.path))
	pv.Spec.Local.FSType = &other
	b.prepare(t, podWith(claimVolume("d", "dirty", false)))
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(l.path)
	if err != nil || raw[state] != 1 {
		t.Errorf("the disk's state is %d after fsck and use, %v", raw[state], err)
	}
}
