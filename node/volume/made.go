package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Words that the node shares with the controller of the built-in storage class,
// control/controller/localpath: who provisions for the class, and the annotations
// of a Node by which the two understand each other. Lists are names of volumes,
// with commas.
const (
	Provisioner   = "sampan.dev/local-path"
	AnnDirectory  = "local-path.sampan.dev/directory" // ours: where directories are made
	AnnRemove     = "local-path.sampan.dev/remove"    // theirs: volumes whose directories shall go
	AnnRemoved    = "local-path.sampan.dev/removed"   // ours: those of them that are gone
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

// ErrInUse is why a volume's directory stays: a pod of this node has it mounted.
var ErrInUse = errors.New("a pod has it mounted")

// trash is where directories lie that are being removed: out of every pod's sight.
const trash = ".gone"

// strange says why a name can't be a directory's of ours.
func strange(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not the name of a directory", name)
	}
	return nil
}

// provide makes the directory of a local volume that is this node's to make, for
// every user like an emptyDir: pods of any user come to it. What is there already
// stays as it is, and so does what is elsewhere.
func (v *Volumes) provide(pv *corev1.PersistentVolume) error {
	if pv.Annotations[provisionedBy] != Provisioner || v.cfg.Made == "" || strange(pv.Name) != nil ||
		pv.Spec.Local.Path != filepath.Join(v.cfg.Made, pv.Name) {
		return nil
	}
	if err := os.MkdirAll(v.cfg.Made, 0o711); err != nil {
		return fmt.Errorf("make room for volumes: %w", err)
	}
	home, err := os.OpenRoot(v.cfg.Made)
	if err != nil {
		return fmt.Errorf("make directory of volume %q: %w", pv.Name, err)
	}
	defer home.Close()
	if _, err := home.Lstat(pv.Name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Under its name only once everybody may use it.
	begun := ".new-" + pv.Name
	if err = home.Mkdir(begun, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
		if err = home.Chmod(begun, 0o777); err == nil {
			err = home.Rename(begun, pv.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("make directory of volume %q: %w", pv.Name, err)
	}
	return nil
}

// Discard removes the directory of a volume that this node has made, with all that
// is in it; there being none is fine. It is ErrInUse while a pod has the volume
// mounted. Links are not followed, and what is mounted somewhere inside is not
// crossed into: that is an error, and everything else has gone by then or goes
// with the next call. It does not care how deep directories lie in each other.
func (v *Volumes) Discard(ctx context.Context, name string) error {
	if v.cfg.Made == "" {
		return nil
	}
	if err := strange(name); err != nil {
		return err
	}
	leave, err := v.turns.take(ctx, filepath.Join(v.cfg.Made, name))
	if err != nil {
		return err
	}
	defer leave()
	home, err := os.OpenRoot(v.cfg.Made)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove volume %q: %w", name, err)
	}
	defer home.Close()
	if err := v.hide(home, name); err != nil {
		return fmt.Errorf("remove volume %q: %w", name, err)
	}
	if err := empty(ctx, home, filepath.Join(trash, name)); err != nil {
		return fmt.Errorf("remove volume %q: %w", name, err)
	}
	_ = home.Remove(trash) // others may lie in it
	return nil
}

// hide moves a volume's directory to the trash, as number 0 of what lies there.
func (v *Volumes) hide(home *os.Root, name string) error {
	info, err := home.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if v.shared(info) {
		return ErrInUse
	}
	if err := home.MkdirAll(filepath.Join(trash, name), 0o700); err != nil {
		return err
	}
	_, err = moveInto(home, name, filepath.Join(trash, name), 0)
	return err
}

// maxListed is how many entries of a directory are looked at at once.
const maxListed = 1024

// empty removes a directory of the trash. Its members are the directories that are
// still to be removed; one inside those becomes another member, so that there is
// never a path longer than this one, nor more than two directories open.
func empty(ctx context.Context, home *os.Root, dir string) error {
	for next := 1; ; {
		members, err := entries(home, dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(members) == 0 {
			return home.Remove(dir)
		}
		for _, m := range members {
			if next, err = strip(ctx, home, dir, m, next); err != nil {
				return err
			}
		}
	}
}

// strip removes one member of dir, or makes members of what it holds. next is a
// number that may be free.
func strip(ctx context.Context, home *os.Root, dir string, member fs.DirEntry, next int) (int, error) {
	path := filepath.Join(dir, member.Name())
	if err := home.Remove(path); err == nil || !member.IsDir() {
		return next, err // a file, or an empty directory
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return next, err
		}
		inside, err := entries(home, path)
		if err != nil {
			return next, err
		}
		if len(inside) == 0 {
			return next, home.Remove(path)
		}
		for _, e := range inside {
			at := filepath.Join(path, e.Name())
			err := home.Remove(at)
			if err != nil && e.IsDir() && !errors.Is(err, unix.EBUSY) {
				next, err = moveInto(home, at, dir, next)
			}
			if err != nil {
				return next, err
			}
		}
	}
}

// moveInto makes a path a numbered member of dir, and gives the number after it.
func moveInto(home *os.Root, path, dir string, number int) (next int, err error) {
	for {
		err := home.Rename(path, filepath.Join(dir, strconv.Itoa(number)))
		number++
		if err == nil || !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTDIR) {
			return number, err
		}
	}
}

// entries are some of a directory's.
func entries(home *os.Root, path string) ([]fs.DirEntry, error) {
	f, err := home.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(maxListed)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}
