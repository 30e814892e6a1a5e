package shortcut

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The kernel enters a program with the shortcut where make tells the linker: it
// becomes the program that is kept for it, when it is meant to.
func TestEntry(t *testing.T) {
	if os.Getuid() != 0 || runtime.GOARCH != "amd64" {
		t.Skip("needs root, whose directory the program is kept in, and amd64")
	}
	dir := t.TempDir()
	carrier := filepath.Join(dir, "carrier")
	build := func(out, flags, source string) {
		t.Helper()
		c := exec.Command("go", "build", "-ldflags", flags, "-o", out, source)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", source, err, b)
		}
	}
	build(carrier, "-E github.com/sampan-dev/sampan/cmd/sampan/shortcut.entry", "./testdata/carrier")
	if err := os.Mkdir(programDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(carrier, &st); err != nil {
		t.Fatal(err)
	}
	kept := nameFor(&st)
	build(kept, "", "./testdata/kept")
	t.Cleanup(func() { os.Remove(kept) })
	if err := os.Chmod(kept, 0o500); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, Link)
	if err := os.Symlink(carrier, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ command, want string }{
		{carrier, "carrier []"},
		{carrier + " up", "carrier [up]"},
		{carrier + " oci", "kept []"},
		{carrier + " oci run x", "kept [run x]"},
		{carrier + " oci2 run x", "carrier [oci2 run x]"},
		{carrier + " oc", "carrier [oc]"},
		{carrier + " run oci", "carrier [run oci]"},
		{link, "kept []"},
		{link + " state oci", "kept [state oci]"},
	} {
		argv := strings.Fields(test.command)
		c := exec.Command(argv[0], argv[1:]...)
		c.Env = []string{"HERE=yes"}
		out, err := c.CombinedOutput()
		if want := test.want + " HERE=yes\n"; err != nil || string(out) != want {
			t.Errorf("%s: %q, %v; want %q", test.command, out, err, want)
		}
	}
}
