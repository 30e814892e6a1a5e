package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// attributeRecord begins the names of a tar's records that are extended attributes.
const attributeRecord = "SCHILY.xattr."

// attributesOf are an open file's extended attributes as a tar has them: those that belong
// to the file and not to this host, as its labels do.
func attributesOf(f *os.File) (map[string]string, error) {
	names, err := attribute(func(to []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), to) })
	if err != nil {
		return nil, fmt.Errorf("extended attributes of %q: %w", f.Name(), err)
	}
	var records map[string]string
	for name := range strings.SplitSeq(names, "\x00") {
		if !ofFile(name) {
			continue
		}
		value, err := attribute(func(to []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, to) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q of %q: %w", name, f.Name(), err)
		}
		if records == nil {
			records = map[string]string{}
		}
		records[attributeRecord+name] = value
	}
	return records, nil
}

// ofFile says that an attribute goes where its file goes: capabilities, access lists, and
// what programs have put there. Labels, measurements and overlayfs's marks stay.
func ofFile(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// maxAttribute is the kernel's limit for an attribute, and for the names of all.
const maxAttribute = 64 << 10

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
		to = make([]byte, maxAttribute)
		n, err = read(to)
	}
	if err != nil {
		return "", err
	}
	return string(to[:n]), nil
}
