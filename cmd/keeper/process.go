package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Exit codes of a program that could not be executed, as a shell has them.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// maxPasswd bounds the read of an image's /etc/passwd.
const maxPasswd = 1 << 20

// become drops what the program must not have and executes it. Nothing here may
// allocate after the seccomp filter is in place more than it must.
func (s *stager) become() error {
	p := &s.p.Process
	if err := s.limits(); err != nil {
		return err
	}
	if err := s.schedule(); err != nil {
		return err
	}
	if p.Umask != nil {
		syscall.Umask(*p.Umask)
	} else {
		syscall.Umask(0o022)
	}
	closeAll([]int{s.root}) // no directory of ours may become the working directory
	if !s.labelsLater() {
		if err := s.label(); err != nil {
			return err
		}
		closeAll([]int{s.proc})
		s.proc = -1
	}
	denied, err := s.chdir()
	if err != nil {
		return err
	}
	s.home()
	if s.path, err = lookup(p); err != nil {
		return err
	}
	argv, err := syscall.SlicePtrFromStrings(p.Args)
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(p.Env)
	if err != nil {
		return err
	}
	if err := s.preserve(); err != nil {
		return err
	}
	if err := s.startHooks(); err != nil {
		return err
	}
	if s.entersLater() {
		return s.becomeMapped()
	}
	if p.NoNewPrivs {
		if err := prctl(prSetNoNewPrivs, 1, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	} else if err := s.seccomp(); err != nil { // needs CAP_SYS_ADMIN, so before it goes
		return err
	}
	if err := s.credentials(); err != nil {
		return err
	}
	if denied { // by root, perhaps not by the user: root squash
		if _, err := s.chdir(); err != nil {
			return err
		}
	}
	prog := cstr(s.path)
	if p.NoNewPrivs {
		if err := s.seccomp(); err != nil {
			return err
		}
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_EXECVE, prog,
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])))
	code := codeNotExecutable
	if e == syscall.ENOENT {
		code = codeNotFound
	}
	return &failure{code, fmt.Errorf("exec %s: %w", s.path, e)}
}

// promising finds early what become would fail with: a program that is not there.
func (s *stager) promising() error {
	if _, err := s.chdir(); err != nil {
		return err
	}
	if _, err := lookup(&s.p.Process); err != nil {
		return err
	}
	return syscall.Chdir("/")
}

// limitNames are those of resource limits, by their numbers.
var limitNames = strings.Fields("cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime") //nolint:gochecknoglobals // a constant

// foresee notes, while somebody listens, which limits will be cut: a hard limit above
// ours takes CAP_SYS_RESOURCE, and there is a most that nobody goes beyond.
func (s *stager) foresee() {
	for _, l := range s.p.Process.Rlimits {
		var have [2]uint64
		if err := prlimit(l.Type, nil, &have); err != nil || l.Hard <= have[1] || l.Type >= len(limitNames) {
			continue
		}
		raised := [2]uint64{have[0], l.Hard}
		if err := prlimit(l.Type, &raised, nil); err != nil {
			s.tolerate("limit %s of %d refused, %d kept: %v", limitNames[l.Type], l.Hard, have[1], err)
		}
	}
}

// limits sets the resource limits. A hard limit that is refused is cut to what we have.
func (s *stager) limits() error {
	for _, l := range s.p.Process.Rlimits {
		want := [2]uint64{l.Soft, l.Hard}
		err := prlimit(l.Type, &want, nil)
		if errors.Is(err, syscall.EPERM) {
			var have [2]uint64
			if err = prlimit(l.Type, nil, &have); err == nil {
				cut := [2]uint64{min(l.Soft, have[1]), have[1]}
				err = prlimit(l.Type, &cut, nil)
			}
		}
		if err != nil {
			return fmt.Errorf("rlimit %d to %d:%d: %w", l.Type, l.Soft, l.Hard, err)
		}
	}
	return nil
}

func prlimit(kind int, set, get *[2]uint64) error {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, uintptr(kind),
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 0, 0)
	return check(e)
}

// chdir goes to the working directory and makes sure that it is inside the root:
// a leaked descriptor of the host must not become one (CVE-2024-21626).
func (s *stager) chdir() (denied bool, err error) {
	cwd := s.p.Process.Cwd
	if cwd == "" {
		cwd = "/"
	}
	err = syscall.Chdir(cwd)
	if errors.Is(err, syscall.EACCES) && !denied && s.p.Process.UID != os.Geteuid() {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", cwd, err)
	}
	var b [4096]byte
	n, err := syscall.Getcwd(b[:])
	if err != nil || n == 0 || b[0] != '/' {
		return false, fmt.Errorf("current working directory is outside of the container's root: %w", errors.Join(err, syscall.EACCES))
	}
	return false, nil
}

// home adds HOME from the image's passwd file when the environment has none.
func (s *stager) home() {
	p := &s.p.Process
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") && e != "HOME=" {
			return
		}
	}
	var text []byte
	// The file is the image's, and may be a pipe, which nobody shall wait for.
	if f, err := os.OpenFile("/etc/passwd", os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			text, _ = io.ReadAll(io.LimitReader(f, maxPasswd))
		}
		f.Close()
	}
	p.Env = append(p.Env, "HOME="+homeIn(string(text), p.UID))
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

// lookup finds the program as execvp would, with an error that says what is wrong.
func lookup(p *plan.Process) (string, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return "", &failure{codeNotFound, errors.New("no command to execute")}
	}
	name := p.Args[0]
	if strings.Contains(name, "/") {
		err := executable(name)
		if err == nil {
			return name, nil
		}
		code := codeNotExecutable
		if errors.Is(err, syscall.ENOENT) {
			code = codeNotFound
		}
		return "", &failure{code, fmt.Errorf("exec: %q: %w", name, err)}
	}
	path := ""
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		if full := dir + "/" + name; executable(full) == nil {
			return full, nil
		}
	}
	return "", &failure{codeNotFound, fmt.Errorf("exec: %q: executable file not found in $PATH", name)}
}

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return errors.New("is a directory")
	case st.Mode()&0o111 == 0:
		return errors.New("permission denied")
	}
	return nil
}

// credentials gives up root, step by step.
func (s *stager) credentials() error {
	p := &s.p.Process
	own, err := getCaps()
	if err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	caps := p.Caps
	if caps == nil {
		caps = &plan.Caps{Bounding: ^uint64(0), Effective: own, Permitted: own}
	}
	if err := dropBounding(caps.Bounding); err != nil {
		return fmt.Errorf("drop bounding capabilities: %w", err)
	}
	if err := prctl(prSetKeepcaps, 1, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := setUser(p); err != nil {
		return err
	}
	if err := prctl(prSetKeepcaps, 0, 0); err != nil {
		return err
	}
	// What the keeper has not got, it cannot give.
	if err := setCaps(caps.Effective&own, caps.Permitted&own, caps.Inheritable&own); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := prctl(prCapAmbient, ambientClearAll, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for c := range uintptr(64) {
		if caps.Ambient&own&(1<<c) == 0 {
			continue
		}
		err := prctl(prCapAmbient, ambientRaise, c)
		if errors.Is(err, syscall.EPERM) {
			continue // not inheritable: as with other runtimes, it is not given
		}
		if err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", c, err)
		}
	}
	return nil
}

// setUser changes this thread only: the others are gone after execve.
func setUser(p *plan.Process) error {
	groups := make([]uint32, len(p.Groups)+1)
	for i, g := range p.Groups {
		groups[i] = uint32(g)
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e = syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); e != 0 {
		return fmt.Errorf("setgid %d: %w", p.GID, e)
	}
	if _, _, e = syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); e != 0 {
		return fmt.Errorf("setuid %d: %w", p.UID, e)
	}
	return nil
}

// capHeader and capData are the kernel's structures of version 3.
type capHeader struct {
	Version uint32
	PID     int32
}
type capData [2]struct{ Effective, Permitted, Inheritable uint32 }

const capVersion3 = 0x20080522

func getCaps() (uint64, error) {
	h := capHeader{Version: capVersion3}
	var d capData
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)), 0)
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32, check(e)
}

func setCaps(effective, permitted, inheritable uint64) error {
	h := capHeader{Version: capVersion3}
	var d capData
	for i := range d {
		shift := 32 * i
		d[i].Effective, d[i].Permitted, d[i].Inheritable = uint32(effective>>shift), uint32(permitted>>shift), uint32(inheritable>>shift)
	}
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)), 0)
	return check(e)
}

// dropBounding drops what is not in keep, up to the kernel's last capability.
func dropBounding(keep uint64) error {
	for c := range uintptr(64) {
		if keep&(1<<c) != 0 {
			continue
		}
		err := prctl(prCapbsetDrop, c, 0)
		if errors.Is(err, syscall.EINVAL) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seccomp loads the ready-made filter for this thread.
func (s *stager) seccomp() error {
	code := s.p.Process.Seccomp
	if len(code) == 0 {
		return nil
	}
	const setModeFilter = 1
	prog := struct {
		Len    uint16
		Filter *byte
	}{uint16(len(code) / 8), &code[0]}
	_, _, e := syscall.RawSyscall(sysSeccomp, setModeFilter, s.p.Process.SeccompFlags, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("load seccomp filter of %d instructions: %w", prog.Len, e)
	}
	return nil
}
