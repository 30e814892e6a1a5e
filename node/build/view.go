package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan/overlay"
	"github.com/sampan-dev/sampan/node/image"
)

// maxUserFile bounds what is read of an image's /etc/passwd and /etc/group.
const maxUserFile = 1 << 20

// view shows the files of an image's layers, read-only.
type view struct {
	tree
	// dir is where they can be seen; "" when there are no layers.
	dir string
	// work is the directory in which it is mounted, if it had to be.
	work *workDir
}

// view opens a view of layers: one layer as it lies, several through overlayfs.
func (b *builder) view(ctx context.Context, layers []image.Layer) (*view, error) {
	lower, err := b.content.Unpack(ctx, layers)
	if err != nil {
		return nil, err
	}
	v := &view{}
	switch len(lower) {
	case 0:
		return v, nil
	case 1:
		v.dir = lower[0]
	default:
		if err := v.mount(image.Rootfs{Lower: lower}); err != nil {
			return nil, err
		}
	}
	if v.Root, err = os.OpenRoot(v.dir); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// mount joins layers with overlayfs at a directory of its own; without an upper one
// nothing can be written there.
func (v *view) mount(places image.Rootfs) error {
	work, err := newWorkDir("", viewDirs)
	if err != nil {
		return err
	}
	// Not at the directory itself: its lock must be found below no mount.
	dir := filepath.Join(work.path, "root")
	err = os.Mkdir(dir, 0o700)
	if err == nil {
		flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID)
		if places.Upper == "" {
			flags |= unix.MS_RDONLY
		}
		err = overlay.Layers{Lower: places.Lower, Upper: places.Upper, Work: places.Work}.Mount(dir, flags)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("overlay of %d layers: %w", len(places.Lower), err), work.close())
	}
	v.dir, v.work = dir, work
	return nil
}

// OpenImage opens the root directory of an image's files, to be read alone; an image
// without layers is ErrNotFound. What was mounted for it goes when the file is closed.
func OpenImage(ctx context.Context, images *image.Store, img image.Image) (f *os.File, err error) {
	content, err := images.NewBuild()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	v, err := (&builder{content: content}).view(ctx, layersOf(img))
	if err != nil {
		return nil, err
	}
	if v.dir == "" {
		return nil, fmt.Errorf("image %s has no files: %w", img.ID, image.ErrNotFound)
	}
	f, err = os.OpenFile(v.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return f, errors.Join(err, v.Close())
}

// layersOf are an image's layers as a build knows them.
func layersOf(img image.Image) []image.Layer {
	var layers []image.Layer
	for i, blob := range img.Layers {
		layers = append(layers, image.Layer{Blob: blob, DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	return layers
}

// OpenSnapshot opens the root directory of what a container that does not run has left,
// to be read alone or to be written too, and gone from the machine when the file is
// closed. Where the store has no such snapshot the error is fs.ErrNotExist.
func OpenSnapshot(images *image.Store, key string, write bool) (f *os.File, err error) {
	places, err := images.Snapshot(key)
	if err != nil {
		return nil, err
	}
	v := &view{}
	if !write {
		places = image.Rootfs{Lower: append([]string{places.Upper}, places.Lower...)}
	}
	if err := v.mount(places); err != nil {
		return nil, err
	}
	f, err = os.OpenFile(v.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	// The mount stays as long as somebody has it open.
	return f, errors.Join(err, v.Close())
}

// stageView opens a view of what COPY --from names.
func (b *builder) stageView(ctx context.Context, st *stage, from string) (*view, error) {
	layers, _, err := b.sourceLayers(ctx, st, from)
	if err != nil {
		return nil, err
	}
	v, err := b.view(ctx, layers)
	if err != nil {
		return nil, err
	}
	v.name, v.owned = "the stage or image "+strconv.Quote(from), true
	if v.Root == nil {
		return nil, fmt.Errorf("%s is empty: %w", v.name, image.ErrNotFound)
	}
	return v, nil
}

// Close unmounts.
func (v *view) Close() error {
	var err error
	if v.Root != nil {
		err = v.Root.Close()
	}
	if v.work != nil {
		err = errors.Join(err, unix.Unmount(v.dir, unix.MNT_DETACH), v.work.close())
	}
	return err
}

// destination follows the symlinks of the image on the way to p, so that a copy
// to /lib/x lands in /usr/lib where /lib is a link to it.
func (v *view) destination(p string) (string, error) {
	if v.dir == "" {
		return p, nil
	}
	real, err := securejoin.SecureJoin(v.dir, p)
	if err != nil {
		return "", fmt.Errorf("destination %q: %w", p, err)
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(real, v.dir), "/"), nil
}

// isDir says whether p, resolved, is a directory of the image.
func (v *view) isDir(p string) bool {
	if p == "/" {
		return true
	}
	if v.dir == "" {
		return false
	}
	info, err := os.Lstat(filepath.Join(v.dir, p))
	return err == nil && info.IsDir()
}

// missing are the directories at and above p, resolved, that the image does not have,
// outermost first. What is there and no directory is an error.
func (v *view) missing(p string) ([]string, error) {
	var dirs []string
	for ; p != "/"; p = path.Dir(p) {
		if v.dir != "" {
			info, err := os.Lstat(filepath.Join(v.dir, p))
			if err == nil && !info.IsDir() {
				return nil, fmt.Errorf("cannot copy to non-directory: %s: %w", p, image.ErrInvalid)
			}
			if err == nil {
				break
			}
		}
		dirs = append(dirs, p)
	}
	slices.Reverse(dirs)
	return dirs, nil
}

// replaceable says whether a directory, or something else, can come to lie at p: a
// directory never takes the place of a file or symlink, nor they that of a directory.
// The words are BuildKit's. Of nil, which is nothing, everything can.
func (v *view) replaceable(p string, byDir bool) error {
	if v == nil || v.dir == "" {
		return nil
	}
	info, err := os.Lstat(filepath.Join(v.dir, p))
	switch {
	case err != nil || info.IsDir() == byDir:
		return nil //nolint:nilerr // nothing is there
	case byDir:
		return fmt.Errorf("cannot copy to non-directory: %s: %w", p, image.ErrInvalid)
	}
	return fmt.Errorf("cannot replace to directory %s with file: %w", p, image.ErrInvalid)
}

// user is a user's IDs: a number as it is, a name from the image's /etc/passwd.
func (v *view) user(name string) (uid, gid int, err error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, n, nil
	}
	fields, err := v.account("/etc/passwd", name, 4)
	if err != nil {
		return 0, 0, err
	}
	uid, err1 := strconv.Atoi(fields[2])
	gid, err2 := strconv.Atoi(fields[3])
	return uid, gid, errors.Join(err1, err2)
}

// group is a group's ID, like user.
func (v *view) group(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	fields, err := v.account("/etc/group", name, 3)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[2])
}

// account finds a name's line in one of the image's account files.
func (v *view) account(file, name string, least int) ([]string, error) {
	fields, err := v.line(file, func(f []string) bool { return len(f) >= least && f[0] == name })
	if err != nil {
		return nil, fmt.Errorf("%q is not in the image's %s: %w", name, file, err)
	}
	return fields, nil
}

// line finds the first line of an account file that is wanted.
func (v *view) line(file string, wanted func([]string) bool) (found []string, err error) {
	err = v.lines(file, func(f []string) bool {
		if found == nil && wanted(f) {
			found = f
		}
		return found == nil
	})
	if err == nil && found == nil {
		err = image.ErrNotFound
	}
	return found, err
}

// lines goes through an account file until each says no.
func (v *view) lines(file string, each func([]string) bool) error {
	if v.dir == "" {
		return image.ErrNotFound
	}
	real, err := securejoin.SecureJoin(v.dir, file)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(real, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return image.ErrNotFound
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return image.ErrNotFound
	}
	for lines := bufio.NewScanner(io.LimitReader(f, maxUserFile)); lines.Scan(); {
		if !each(strings.Split(lines.Text(), ":")) {
			return nil
		}
	}
	return nil
}

// maxGroups bounds the further groups of a user.
const maxGroups = 256

// groups are those of which the image's /etc/group says that the user is in them.
func (v *view) groups(user string) []uint32 {
	var all []uint32
	_ = v.lines("/etc/group", func(f []string) bool { // no such file, no groups
		if len(f) > 3 && slices.Contains(strings.Split(f[3], ","), user) {
			if id, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				all = append(all, uint32(id))
			}
		}
		return len(all) < maxGroups
	})
	return all
}

// portNumber reads a TCP or UDP port.
func portNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %q: %w", s, image.ErrInvalid)
	}
	return n, nil
}
