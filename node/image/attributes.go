package image

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattrs is the kernel's bound for the names of a file's extended attributes, and for
// the value of each.
const maxXattrs = 64 << 10

// Attributes are an open file's extended attributes by name, those that are wanted; nil is
// none.
func Attributes(f *os.File, wanted func(name string) bool) (map[string]string, error) {
	names, err := attribute(func(to []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), to) })
	if err != nil {
		return nil, fmt.Errorf("extended attributes: %w", err)
	}
	var all map[string]string
	for name := range strings.SplitSeq(strings.TrimRight(names, "\x00"), "\x00") {
		if name == "" || !wanted(name) {
			continue
		}
		value, err := attribute(func(to []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, to) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q: %w", name, err)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = value
	}
	return all, nil
}

// attribute reads one, or the names of all. Most files have none, and cost one call.
func attribute(read func(to []byte) (int, error)) (string, error) {
	n, err := read(nil)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil || n == 0 {
		return "", err
	}
	to := make([]byte, n)
	if n, err = read(to); errors.Is(err, unix.ERANGE) { // it has grown meanwhile
		to = make([]byte, maxXattrs)
		n, err = read(to)
	}
	if err != nil {
		return "", err
	}
	return string(to[:n]), nil
}
