package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAppends(t *testing.T) {
	for release, want := range map[string]bool{
		"5.15.0-91-generic": false, "6.1.0-56-cloud-amd64": false, "6.6.87": false, "6.7.0": true, "6.7-rc1": true, "6.18.5": true, "7.0.0": true, "10.2": true,
		"": false, "six": false, "6": false,
	} {
		if got := appends(release); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

func TestData(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	got, err := Layers{[]string{"/a:b", `/c\d`, "/e,f"}, "/u,p", "/w", label}.Data()
	if want := `lowerdir=/a\:b:/c\\d:/e\,f,upperdir=/u\,p,workdir=/w,context="` + label + `"`; err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := (Layers{Lower: []string{"/" + strings.Repeat("x", maxData)}}).Data(); !errors.Is(err, ErrLong) {
		t.Error(err)
	}
}

// A hundred and twenty layers are more than a page of names; the topmost hides those
// below, and what is written goes above.
func TestMountMany(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	var lower []string
	for i := range 120 {
		l := filepath.Join(dir, strings.Repeat("l", 60)+fmt.Sprint(i))
		lower = append(lower, l)
		write(t, filepath.Join(l, "top"), fmt.Sprint(i))
		write(t, filepath.Join(l, fmt.Sprint(i)), "")
	}
	upper, work, at := filepath.Join(dir, "a,b"), filepath.Join(dir, "w"), filepath.Join(dir, "at")
	for _, d := range []string{upper, work, at} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Layers{Lower: lower, Upper: upper, Work: work}).Mount(at, syscall.MS_NODEV); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if raw, err := os.ReadFile(filepath.Join(at, "top")); err != nil || string(raw) != "0" {
		t.Errorf("%q %v", raw, err)
	}
	found, err := os.ReadDir(at)
	if err != nil || len(found) != 121 {
		t.Errorf("%d entries, %v", len(found), err)
	}
	write(t, filepath.Join(at, "new"), "x")
	if _, err := os.Stat(filepath.Join(upper, "new")); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
