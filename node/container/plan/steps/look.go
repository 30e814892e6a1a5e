package steps

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxPasswd bounds the read of an image's /etc/passwd.
const maxPasswd = 1 << 20

// Look finds the program of a process in the container whose root is open at root,
// as execvp in it would, and the user's home directory, without ever leaving it.
// What is not plainly there and executable is a stage's to judge: ErrStage. The
// files are the container's, and may not answer.
func Look(root int, p *plan.Process) (program, home string, err error) {
	if program, err = lookup(root, p); err != nil || hasHome(p.Env) {
		return program, "", err
	}
	return program, homeIn(passwd(root), p.UID), nil
}

// openIn opens a file of a container.
func openIn(root int, name string, flags int) (int, error) {
	how := struct{ Flags, Mode, Resolve uint64 }{Flags: uint64(flags | syscall.O_CLOEXEC), Resolve: inRoot}
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	fd, _, e := syscall.Syscall6(sysOpenat2, uintptr(root), uintptr(unsafe.Pointer(p)),
		uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

func passwd(root int) string {
	fd, err := openIn(root, "etc/passwd", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return ""
	}
	text := make([]byte, min(st.Size, maxPasswd))
	n, _ := syscall.Pread(fd, text, 0)
	return string(text[:max(n, 0)])
}

// homeIn is the home directory of a user as a passwd file has it.
func homeIn(passwd string, uid int) string {
	for line := range strings.Lines(passwd) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 6 && f[2] == strconv.Itoa(uid) {
			return f[5]
		}
	}
	return "/"
}

func lookup(root int, p *plan.Process) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", fmt.Errorf("%w: no command", ErrStage)
	}
	name, dirs := p.Args[0], []string{""}
	if !strings.Contains(name, "/") {
		dirs = nil
		for _, e := range p.Env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				dirs = filepath.SplitList(v)
			}
		}
	}
	for _, dir := range dirs {
		full := name
		if dir != "" {
			full = dir + "/" + name
		} else if !strings.Contains(name, "/") {
			full = "./" + name
		}
		at := full
		if !path.IsAbs(at) {
			at = path.Join("/", p.Cwd, at)
		}
		if executable(root, at) {
			return full, nil
		}
	}
	return "", fmt.Errorf("%w: %q is not there", ErrStage, name)
}

func executable(root int, name string) bool {
	fd, err := openIn(root, name, oPath)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	return syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG && st.Mode&0o111 != 0
}
