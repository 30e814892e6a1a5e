// Package shortcut is why sampan oci starts as quickly as the small program that
// it is. That verb is started several times a container, by containerd or Podman,
// while the packages of a whole cluster need longer to initialise than a container
// takes to run. So before they do, the process becomes the program of cmd/oci,
// which sampan carries.
//
// A sampan that make has built does it before anything of Go runs, in a few
// instructions (entry, which the linker is told of), when the program's file is
// there. The first time, and everywhere else, init does it:
// it works because packages are initialised in the order of their import paths as
// soon as what they import is: this one imports next to nothing, and its path
// comes early. Nothing depends on that but speed: Run does the same later.
package shortcut

import (
	"embed"
	"errors"
	"io"
	"io/fs"
	"path"
	"syscall"
	"unsafe"
)

//go:embed assets
var assets embed.FS

const verb = "oci"

// Link is a name of sampan that means sampan oci: runtimes are configured as the
// path of a program, which has no place for a verb.
const Link = "sampan-oci"

func init() { //nolint:gochecknoinits // what this package is for: see its documentation
	argv, err := commandLine()
	if err != nil || len(argv) == 0 {
		return
	}
	if path.Base(argv[0]) == Link {
		_ = Run(argv[1:]) // it returns when it failed: the verb will say why
	}
	if len(argv) > 1 && argv[1] == verb {
		_ = Run(argv[2:])
	}
}

// Run becomes the program of cmd/oci with its arguments. It returns only when it
// cannot.
func Run(args []string) error {
	f, err := assets.Open("assets/oci")
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("this sampan was built without the OCI runtime's command line: build it with make")
	}
	if err != nil {
		return err
	}
	argv := append([]string{Link}, args...)
	if path, err := kept(f); err == nil {
		_ = syscall.Exec(path, argv, syscall.Environ()) // it may be on a filesystem without execution
	}
	fd, err := memfd(Link)
	if err != nil {
		return err
	}
	if err := fill(fd, f); err != nil {
		syscall.Close(fd)
		return err
	}
	return syscall.Exec("/proc/self/fd/"+digits(fd), argv, syscall.Environ())
}

// programDir holds the program as a file: to copy it into memory each time would
// take longer than all that it does. Only root writes there.
const programDir = "/run/sampan-oci.programs"

// kept finds the program as a file, or writes it. Its name says which sampan it
// came from: by device, inode, size and time of its last change.
func kept(f io.Reader) (string, error) {
	var self, st syscall.Stat_t
	if err := syscall.Stat("/proc/self/exe", &self); err != nil {
		return "", err
	}
	if syscall.Geteuid() != 0 {
		return "", syscall.EPERM
	}
	err := syscall.Lstat(programDir, &st)
	if err == syscall.ENOENT {
		if err = syscall.Mkdir(programDir, 0o700); err == nil || err == syscall.EEXIST {
			err = syscall.Lstat(programDir, &st)
		}
	}
	if err != nil {
		return "", err
	}
	if st.Mode != syscall.S_IFDIR|0o700 || st.Uid != 0 {
		return "", syscall.EPERM
	}
	name := nameFor(&self)
	if err := syscall.Lstat(name, &st); err == nil && st.Mode == syscall.S_IFREG|0o500 && st.Uid == 0 {
		return name, nil
	}
	return name, write(name, f)
}

// nameFor is the file of the program that a sampan carries. Entry makes the same.
func nameFor(self *syscall.Stat_t) string {
	return programDir + "/oci" + hex(self.Dev) + hex(self.Ino) + hex(uint64(self.Size)) + hex(uint64(self.Ctim.Nano()))
}

// write makes the file, whole or not at all. A file that is being written cannot be
// executed, so the name comes last.
func write(name string, f io.Reader) error {
	part := name + "." + digits(syscall.Getpid())
	fd, err := syscall.Open(part, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o500)
	if err != nil {
		return err
	}
	err = fill(fd, f)
	if cerr := syscall.Close(fd); err == nil {
		err = cerr
	}
	if err == nil {
		err = syscall.Chmod(part, 0o500)
	}
	if err == nil {
		err = syscall.Rename(part, name)
	}
	if err != nil {
		_ = syscall.Unlink(part)
	}
	return err
}

// Write writes the program to w, for those who want it as a file of its own.
func Write(w io.Writer) error {
	f, err := assets.Open("assets/oci")
	if err != nil {
		return errors.New("this sampan was built without the OCI runtime's command line: build it with make")
	}
	defer func() { _ = f.Close() }() // an embedded file: nothing to fail
	_, err = io.Copy(w, f)
	return err
}

func memfd(name string) (int, error) {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	const cloexec = 1
	fd, _, e := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(p)), cloexec, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

func fill(fd int, from io.Reader) error {
	if s, ok := from.(io.Seeker); ok {
		if _, err := s.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	b := make([]byte, 256<<10)
	for {
		n, err := from.Read(b)
		for done := 0; done < n; {
			m, werr := syscall.Write(fd, b[done:n])
			if werr != nil {
				return werr
			}
			done += m
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// maxCommandLine is the kernel's own bound of one argument; the whole may be longer.
const maxCommandLine = 128 << 10

// commandLine is os.Args, which is not there yet: package os comes later.
func commandLine() ([]string, error) {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	b := make([]byte, maxCommandLine)
	n := 0
	for n < len(b) {
		m, err := syscall.Read(fd, b[n:])
		if err != nil {
			return nil, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	if n == len(b) {
		return nil, syscall.E2BIG
	}
	var out []string
	from := 0
	for i := range n {
		if b[i] == 0 {
			out = append(out, string(b[from:i]))
			from = i + 1
		}
	}
	return out, nil
}

// hex is a dash and a number.
func hex(n uint64) string {
	b := [17]byte{'-'}
	for i := 16; i > 0; i-- {
		b[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
	return string(b[:])
}

func digits(n int) string {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return string(b[i:])
		}
	}
}
