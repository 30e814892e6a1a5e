package image

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A layer brings its files' attributes, but none that this host alone may give.
func TestAttributes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("attributes of the system are root's to give")
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	given := map[string]bool{"user.mine": true, "security.selinux": false, "trusted.overlay.opaque": false, "user.overlay.opaque": false}
	h := &tar.Header{Name: "f", PAXRecords: map[string]string{"comment": "none"}}
	for name := range given {
		h.PAXRecords[paxXattrPrefix+name] = "strange_t"
	}
	if err := setXattrs(f, h); err != nil {
		t.Fatal(err)
	}
	for name, want := range given {
		var b [64]byte
		n, err := unix.Fgetxattr(int(f.Fd()), name, b[:])
		if errors.Is(err, unix.ENOTSUP) {
			t.Skip("this file system has no attributes")
		}
		if got := err == nil && string(b[:n]) == "strange_t"; got != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}
