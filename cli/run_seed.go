package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// noCopyAnnotation are the places of volumes that shall not begin with what the image has
// there, with commas between them.
const noCopyAnnotation = "sampan.dev/volumes-nocopy"

// seed gives volumes that have nothing in them yet what the image has at their place, as
// docker does. Those without a name get one for that, if there is something.
func (r *running) seed(ctx context.Context, store *image.Store, img image.Image) error {
	for _, m := range r.pod.Spec.Containers[0].VolumeMounts {
		dir := r.emptyVolume(m)
		if dir == "" {
			continue
		}
		root, err := build.OpenImage(ctx, store, img)
		if errors.Is(err, image.ErrNotFound) {
			return nil // the image has no files
		}
		filled := false
		if err == nil {
			filled, err = fill(ctx, dir, root, m.MountPath)
			_ = root.Close() // nothing was written there
		}
		if filled {
			r.keepIn(m.Name, dir)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", filepath.Base(dir), err)
		}
	}
	return nil
}

// emptyVolume is the directory of the named volume that is mounted there, if it may be
// filled; else "".
func (r *running) emptyVolume(m corev1.VolumeMount) string {
	i := slices.IndexFunc(r.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
	if i < 0 || m.SubPath != "" || slices.Contains(strings.Split(r.pod.Annotations[noCopyAnnotation], ","), m.MountPath) {
		return ""
	}
	source := &r.pod.Spec.Volumes[i].VolumeSource
	if source.EmptyDir != nil && source.EmptyDir.Medium == corev1.StorageMediumDefault {
		return filepath.Join(r.settings.volumeDir(), anonymousName())
	}
	if source.HostPath == nil {
		return ""
	}
	dir := source.HostPath.Path
	if filepath.Dir(dir) != r.settings.volumeDir() {
		return ""
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return dir
}

// keepIn has a volume be in a directory of volumes.
func (r *running) keepIn(volume, dir string) {
	if r.labelled != nil {
		r.labelled[dir] = everybody
	}
	for i := range r.pod.Spec.Volumes {
		if v := &r.pod.Spec.Volumes[i]; v.Name == volume && v.EmptyDir != nil {
			v.VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: new(corev1.HostPathDirectoryOrCreate)}}
		}
	}
}

// anonymousName is that of a volume that nobody has given one: as docker's, 64 digits.
func anonymousName() string {
	b := make([]byte, anonymousLen/2)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// anonymousLen is how many digits such a name has.
const anonymousLen = 64

// anonymous says whether a volume's name was made up.
func anonymous(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == anonymousLen
}

// dropAnonymous removes the volumes of a container that has been removed, of which nobody
// knows the name, unless another has them too.
func (s *Settings) dropAnonymous(ctx context.Context, pod *corev1.Pod) error {
	mine := slices.DeleteFunc(slices.Collect(maps.Keys(volumeUsers([]*corev1.Pod{pod}, s.volumeDir()))), func(name string) bool { return !anonymous(name) })
	if len(mine) == 0 || os.Geteuid() != 0 {
		return nil
	}
	users, err := s.usersOf(ctx)
	if err != nil {
		return err
	}
	for _, name := range mine {
		if len(users[name]) == 0 {
			err = errors.Join(err, s.dropVolume(name))
		}
	}
	return err
}

// fill copies what is at a path of an image into a directory, which gets the owner and
// mode of the image's. Where nothing is it makes none.
func fill(ctx context.Context, dir string, root *os.File, at string) (bool, error) {
	source := place{root: root, path: at}
	f, err := source.open(at, true)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return false, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, nil
	}
	// An empty one has an owner, which matters where the directory stays.
	if entries, err := os.ReadDir(handle(f)); err != nil || len(entries) == 0 && anonymous(filepath.Base(dir)) {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // whoever is in the container
		return false, err
	}
	source.path = strings.TrimSuffix(at, "/") + "/."
	c := copying{copyFlags: copyFlags{archive: true}, source: source, target: place{path: dir}}
	if err := c.run(ctx); err != nil {
		return false, err
	}
	return true, errors.Join(os.Chown(dir, int(stat.Uid), int(stat.Gid)), unix.Chmod(dir, stat.Mode&0o7777))
}
