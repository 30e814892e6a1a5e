package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMounts bounds what is read of the mount table: far above what a node with
// hundreds of pods has.
const maxMounts = 100_000

// mountsUnder lists the mount points at or below dir, the deepest and latest
// first, so that unmounting in that order always works.
func mountsUnder(dir string) ([]string, error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	var found []string
	lines := bufio.NewScanner(f)
	for n := 0; lines.Scan() && n < maxMounts; n++ {
		fields := strings.SplitN(lines.Text(), " ", 6) // the fifth is the mount point
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	slices.Reverse(found)
	slices.SortStableFunc(found, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return found, lines.Err()
}

// unescape undoes the kernel's octal escapes for blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s // nearly all of them
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// alone cuts a mount off from its peers: what is unmounted below it then goes
// here, and not from the host's directory that the mount shows. A path that is no
// mount any more is none of ours.
func alone(point string) error {
	err := unix.Mount("", point, "", unix.MS_PRIVATE, "")
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cut %q off from its peers: %w", point, err)
	}
	return nil
}

// replace unmounts what is mounted at point and below it, for a new mount there.
func replace(point string) error {
	mounts, err := mountsUnder(point)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := alone(m); err != nil {
			return err
		}
	}
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount stale %q: %w", point, err)
	}
	return nil
}
