// Package overlay says how the layers of an overlay mount are told to the kernel.
//
// Since Linux 6.7 a context of fsopen(2) takes them one by one (lowerdir+), as many
// as there are. An older kernel takes that option, too, and fails only when the mount
// is made; and what fsconfig(2) hands it is cut at 255 bytes a value, which is not two
// layers. There it is mount(2), whose data may fill a page.
//
// Of the standard library only, for the keeper's sake.
package overlay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Layer begins the option that names one layer, where the kernel takes them one by one.
const Layer = "lowerdir+="

// maxData is what mount(2) reads of its data: a page, less the byte that ends it.
const maxData = 4096 - 1

// ErrLong is for layers whose names do not fit into one mount(2).
var ErrLong = errors.New("the names of the layers are longer than a page")

// Appends says whether this kernel takes layers one by one.
func Appends() bool {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return false
	}
	release := make([]byte, 0, len(name.Release))
	for _, c := range name.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	return appends(string(release))
}

func appends(release string) bool {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	if end := strings.IndexFunc(minor, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
		minor = minor[:end]
	}
	a, err := strconv.Atoi(major)
	if err != nil {
		return false
	}
	b, err := strconv.Atoi(minor)
	return err == nil && (a > 6 || a == 6 && b >= 7)
}

// Layers are what an overlay is made of.
type Layers struct {
	// Lower are the layers, the topmost first.
	Lower []string
	// Upper and Work are where changes go; without them it can only be read.
	Upper, Work string
	// Context is the SELinux label of everything in it, whatever that of the layers;
	// empty leaves each file its own.
	Context string
}

// Data is the data of a mount(2) of layers. The error is ErrLong, and Short makes names
// that fit.
func (l Layers) Data() (string, error) {
	escaped := make([]string, len(l.Lower))
	for i, l := range l.Lower {
		escaped[i] = strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace(l)
	}
	data := "lowerdir=" + strings.Join(escaped, ":")
	if l.Upper != "" {
		comma := strings.NewReplacer(`\`, `\\`, ",", `\,`)
		data += ",upperdir=" + comma.Replace(l.Upper) + ",workdir=" + comma.Replace(l.Work)
	}
	if l.Context != "" { // which has commas, in its level
		data += `,context="` + l.Context + `"`
	}
	if len(data) > maxData {
		return "", fmt.Errorf("%d layers: %w", len(l.Lower), ErrLong)
	}
	return data, nil
}

// Short gives directories names by descriptor, which are good in this process until
// done is called.
func Short(dirs []string) (names []string, done func(), err error) {
	var open []int
	done = func() {
		for _, fd := range open {
			syscall.Close(fd)
		}
	}
	const path = 0x200000 // O_PATH, which package syscall does not have
	for _, dir := range dirs {
		fd, err := syscall.Open(dir, path|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("open layer %q: %w", dir, err)
		}
		open = append(open, fd)
		names = append(names, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	return names, done, nil
}

// Mount is a mount(2) of layers at target, however many they are.
func (l Layers) Mount(target string, flags uintptr) error {
	data, err := l.Data()
	if errors.Is(err, ErrLong) {
		short, done, err := Short(l.Lower)
		if err != nil {
			return err
		}
		defer done()
		if data, err = (Layers{short, l.Upper, l.Work, l.Context}).Data(); err != nil {
			return err
		}
		return mount(target, flags, data)
	}
	if err != nil {
		return err
	}
	return mount(target, flags, data)
}

func mount(target string, flags uintptr, data string) error {
	if err := syscall.Mount("overlay", target, "overlay", flags, data); err != nil {
		return fmt.Errorf("mount an overlay at %q: %w", target, err)
	}
	return nil
}
