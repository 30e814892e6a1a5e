package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// compareTrees says what is first found to differ in a directory from what it should be:
// names, kinds, permissions, owners, attributes, targets and content, not times. That a
// file cannot be read counts as a difference; failed is about the directory that is right.
func compareTrees(right, there string) (differs, failed error) {
	a, err := os.OpenRoot(right)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := os.OpenRoot(there)
	if err != nil {
		return err, nil
	}
	defer b.Close()
	t := &trees{right: a, there: b}
	differs = t.entry(".")
	return differs, t.failed
}

// trees are two that are compared.
type trees struct {
	right, there *os.Root
	failed       error
}

// entry compares one file or directory, with all that is in it.
func (t *trees) entry(name string) error {
	want, err := t.right.Lstat(name)
	if err != nil {
		t.failed = err
		return nil
	}
	got, err := t.there.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q is missing: %w", name, ErrInvalid)
	}
	if err != nil {
		return err
	}
	if what := kindDiffers(want, got); what != "" {
		return fmt.Errorf("%q has %s: %w", name, what, ErrInvalid)
	}
	switch {
	case want.IsDir():
		return t.directory(name)
	case want.Mode()&os.ModeSymlink != 0:
		return t.link(name)
	case want.Mode().IsRegular():
		return t.file(name)
	}
	return nil
}

// kindDiffers compares what a file's inode says.
func kindDiffers(want, got os.FileInfo) string {
	a, okA := statOf(want)
	b, okB := statOf(got)
	switch {
	case want.Mode().Type() != got.Mode().Type():
		return "another kind"
	case want.Mode() != got.Mode():
		return fmt.Sprintf("mode %s, and should have %s", got.Mode(), want.Mode())
	case want.Mode().IsRegular() && want.Size() != got.Size():
		return fmt.Sprintf("%d bytes, and should have %d", got.Size(), want.Size())
	case !okA || !okB:
		return ""
	case a.Uid != b.Uid || a.Gid != b.Gid:
		return fmt.Sprintf("owner %d:%d, and should have %d:%d", b.Uid, b.Gid, a.Uid, a.Gid)
	case want.Mode()&os.ModeDevice != 0 && a.Rdev != b.Rdev:
		return "another device"
	}
	return ""
}

func statOf(info os.FileInfo) (*syscall.Stat_t, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return stat, ok
}

func (t *trees) directory(name string) error {
	want, err := names(t.right, name)
	if err != nil {
		t.failed = err
		return nil
	}
	got, err := names(t.there, name)
	if err != nil {
		return err
	}
	for _, n := range got {
		if _, found := slices.BinarySearch(want, n); !found {
			return fmt.Errorf("%q is not of the image: %w", path.Join(name, n), ErrInvalid)
		}
	}
	if err := t.attributes(name); err != nil {
		return err
	}
	for _, n := range want {
		if err := t.entry(path.Join(name, n)); err != nil || t.failed != nil {
			return err
		}
	}
	return nil
}

// names are what is in a directory, sorted.
func names(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	slices.Sort(all)
	return all, err
}

func (t *trees) link(name string) error {
	want, err := t.right.Readlink(name)
	if err != nil {
		t.failed = err
		return nil
	}
	got, err := t.there.Readlink(name)
	if err == nil && want != got {
		err = fmt.Errorf("%q leads to %q, and should to %q: %w", name, got, want, ErrInvalid)
	}
	return err
}

// compareBlock is how much of a file is compared at once.
const compareBlock = 128 << 10

func (t *trees) file(name string) error {
	want, err := t.right.Open(name)
	if err != nil {
		t.failed = err
		return nil
	}
	defer want.Close()
	got, err := t.there.Open(name)
	if err != nil {
		return err
	}
	defer got.Close()
	one, other := make([]byte, compareBlock), make([]byte, compareBlock)
	for {
		n, errA := io.ReadFull(want, one)
		m, errB := io.ReadFull(got, other)
		ends := errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF)
		if errA != nil && !ends {
			t.failed = errA
			return nil
		}
		if errB != nil && !errors.Is(errB, io.EOF) && !errors.Is(errB, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%q cannot be read: %w", name, errB)
		}
		if !bytes.Equal(one[:n], other[:m]) {
			return fmt.Errorf("the content of %q is not the image's: %w", name, ErrInvalid)
		}
		if ends {
			return t.attributes(name)
		}
	}
}

// attributes compares the extended attributes that layers have.
func (t *trees) attributes(name string) error {
	want, err := attributesOf(t.right, name)
	if err != nil {
		t.failed = err
		return nil
	}
	got, err := attributesOf(t.there, name)
	if err == nil && !maps.Equal(want, got) {
		err = fmt.Errorf("the attributes of %q are not the image's: %w", name, ErrInvalid)
	}
	return err
}

// attributesOf are the extended attributes of a file; SELinux' are the machine's.
func attributesOf(root *os.Root, name string) (map[string]string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := Attributes(f, func(name string) bool { return name != selinux.Attribute })
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	return all, nil
}
