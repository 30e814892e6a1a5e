package steps

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Init is the first process of a container. It builds the container's world, says
// Ready on Control, waits there for a message of Go, then at the plan's StartFIFO
// if there is one, and becomes the program. Its descriptors are stdio, Control and
// Self; with bare, for which Bare must hold, also Target: a mount namespace with nothing
// in it that its own is to be made of. Without, it is born in its own.
func Init(p *plan.Plan, bare bool) ([]byte, error) {
	if err := fits(p); err != nil {
		return nil, err
	}
	w := newWorld(p)
	w.bare = bare
	w.begin("sampan-init")
	gate := w.gate()
	w.namespaces()
	w.buildRoot()
	w.enterRoot()
	w.null3(p.Process.Null)
	w.limits(&p.Process)
	w.sys(syscall.SYS_UMASK, n(umask(&p.Process)))
	w.closeOthers()
	w.mortal()
	command := address(scratchAddress)
	w.sys(syscall.SYS_WRITE, n(Control), w.str(ready), n(len(ready)))
	w.sys(syscall.SYS_READ, n(Control), command, n(maxGo-1)).check(checkSome)
	if gate != nil {
		w.sys(syscall.SYS_READ, *gate, address(scratchAddress+maxGo), n(pageSize)).check(checkSome)
		w.sys(syscall.SYS_CLOSE, *gate)
	}
	env := []uint64{}
	if !hasHome(p.Process.Env) {
		env = append(env, command.n+maxPath)
	}
	w.become(&p.Process, nil, program{path: command, args: w.strs(p.Process.Args), env: w.strs(p.Process.Env, env...), name: p.Process.Args[0]})
	return w.file()
}

// Pause is the pid 1 of a sandbox whose containers share one pid namespace. It
// says Ready, waits for any message, and closes Control: then it is running.
func Pause(p *plan.Plan) ([]byte, error) {
	if p.Kind != plan.Pause || p.Process.UserNS != "" {
		return nil, ErrStage
	}
	w := newWorld(p)
	w.begin("sampan-pause")
	w.namespaces()
	w.closeOthers()
	w.mortal()
	ignore := w.words(1, 0, 0, 0) // SIG_IGN: the kernel reaps our children
	w.sys(syscall.SYS_RT_SIGACTION, n(int(syscall.SIGCHLD)), ignore, n(0), n(8))
	w.sys(syscall.SYS_WRITE, n(Control), w.str(ready), n(len(ready)))
	w.sys(syscall.SYS_READ, n(Control), address(scratchAddress), n(maxGo)).check(checkSome)
	w.sys(syscall.SYS_CLOSE, n(Control))
	again := w.place()
	forever := w.sys(syscall.SYS_PPOLL, n(0), n(0), n(0), n(0), n(0)).mayFail()
	forever.entry().OK, forever.entry().Bad = again, again
	return w.file()
}

// fits says whether a list can do the plan.
func fits(p *plan.Plan) error {
	switch {
	case p.Version != plan.Version || p.Kind != plan.Init:
		return fmt.Errorf("%w: plan of version %d for %q", ErrStage, p.Version, p.Kind)
	case p.Hooks != nil:
		return fmt.Errorf("%w: hooks", ErrStage)
	case p.Process.TTY, p.Process.Preserved > 0, p.Process.UserNS != "":
		return fmt.Errorf("%w: a terminal, descriptors or a user namespace", ErrStage)
	case otherTime(p):
		return fmt.Errorf("%w: a time namespace", ErrStage)
	case scheduled(&p.Process):
		return fmt.Errorf("%w: a scheduler or a personality", ErrStage)
	case len(p.Process.Args) == 0 || p.Process.Args[0] == "":
		return fmt.Errorf("%w: no command", ErrStage)
	}
	if _, err := layersOf(&p.Root).Data(); p.Root.Named && err != nil {
		return fmt.Errorf("%w: %w", ErrStage, err)
	}
	dev := 0
	for i := range p.Mounts {
		m := &p.Mounts[i]
		if m.IDMap || m.CopyUp || m.Bind && m.Dir == m.File || m.Type == "overlay" && p.Root.Named || inherits(m) {
			return fmt.Errorf("%w: mount on %q", ErrStage, m.Target)
		}
		if isDev(m) {
			dev++
		}
	}
	if dev != 1 || p.DevReadonly {
		return fmt.Errorf("%w: /dev is not one fresh tmpfs", ErrStage)
	}
	null := false
	for _, d := range p.Devices {
		if path.Dir(d.Path) != "/dev" || path.Base(d.Path) == ".." {
			return fmt.Errorf("%w: device %q", ErrStage, d.Path)
		}
		null = null || d.Path == "/dev/null" && d.Mode&syscall.S_IFMT == syscall.S_IFCHR && d.Major == 1 && d.Minor == 3
	}
	if !null {
		return fmt.Errorf("%w: no null device", ErrStage)
	}
	return nil
}

// scheduled says that a process wants other processors, disks, memory or words of the kernel
// than everybody has, or somebody to ask. It is seldom, and a stage does it.
func scheduled(p *plan.Process) bool {
	return p.Schedule != nil || p.Personality != nil || p.Memory != nil || p.Listener != nil
}

// otherTime says that a time namespace is made or entered, which is as seldom.
func otherTime(p *plan.Plan) bool {
	return p.Unshare&cloneNewtime != 0 || slices.ContainsFunc(p.Joins, func(j plan.Join) bool { return j.Flag == cloneNewtime })
}

// inherits says that a tmpfs has the mode of what it covers.
func inherits(m *plan.Mount) bool {
	return m.Type == "tmpfs" && !m.Bind && !m.Remount && !strings.HasPrefix(m.Data, "mode=") && !strings.Contains(m.Data, ",mode=")
}

// isDev says that a mount is the tmpfs on /dev, which devices are made on.
func isDev(m *plan.Mount) bool {
	return m.Type == "tmpfs" && !m.Bind && !m.Remount && path.Clean("/"+m.Target) == "/dev"
}

func umask(p *plan.Process) int {
	if p.Umask != nil {
		return *p.Umask
	}
	return 0o022
}

// world is a list that puts a container together.
type world struct {
	*list
	p    *plan.Plan
	root value
	// bare says that it comes from the host's mount namespace and goes into an empty one.
	bare bool
	// null is the null device, made by us; cover the first empty directory that
	// hides another, or nil.
	null  value
	cover *value
	// kept is the first descriptor that is to be closed.
	kept int
	// opened says that the cgroups' files are open, from behind Target on.
	opened bool
	// joined says that joinLate has been there.
	joined bool
}

func newWorld(p *plan.Plan) *world {
	entries, data := otherEntries, otherData
	if p.Kind == plan.Init {
		entries, data = initEntries, initData
	}
	return &world{list: newList(entries, data), p: p, kept: Self}
}

// begin is what each little program does first: nobody shall look into it, and
// nobody inherit what it opens.
func (w *world) begin(name string) {
	w.sys(syscall.SYS_PRCTL, n(prSetDumpable), n(0), n(0), n(0), n(0))
	w.sys(sysCloseRange, n(Control), n(maxFD), n(closeRangeCloexec))
	w.sys(syscall.SYS_PRCTL, n(prSetName), w.str(name), n(0), n(0), n(0))
	w.sys(syscall.SYS_CLOSE, n(Self))
	w.sys(syscall.SYS_UMASK, n(0))
	if adj := w.p.Process.OOMScoreAdj; adj != nil {
		// A refusal of the kernel is tolerated, and noted: by a stage.
		w.write("/proc/self/oom_score_adj", fmt.Sprint(*adj))
	}
	for _, label := range w.p.Process.Labels { // while /proc is the host's: an image's could lead anywhere
		w.write("/proc/thread-self/"+label.Attr, label.Text)
	}
	w.keyring()
	if !w.p.CgroupsLate {
		w.join()
	}
}

// keyring makes the session keyring, where the kernel has keys.
func (w *world) keyring() {
	k := w.p.Process.Keyring
	if k.Keep {
		return
	}
	if k.Label != "" {
		w.write("/proc/thread-self/attr/keycreate", k.Label)
	}
	w.sys(syscall.SYS_KEYCTL, n(plan.JoinSession), n(0)).unless(int64(syscall.ENOSYS))
}

// join moves the process into its cgroups.
func (w *world) join() {
	for i, path := range w.p.CgroupProcs {
		if w.opened {
			w.sys(syscall.SYS_WRITE, n(Target+1+i), w.str("0"), n(1))
		} else {
			w.write(path, "0")
		}
	}
	cpus := everyCPU()
	w.sys(syscall.SYS_SCHED_SETAFFINITY, n(0), n(len(cpus)), address(w.put(cpus))).mayFail()
}

// joinLate waits until the cgroups are there, and joins them. Whatever shows them comes
// after that, and nothing of the container's own before.
func (w *world) joinLate() {
	if !w.p.CgroupsLate || w.joined {
		return
	}
	w.joined = true
	w.sys(syscall.SYS_READ, n(Control), address(scratchAddress), n(pageSize)).check(checkSome)
	w.join()
	if flags := w.p.Unshare & cloneNewcgroup; flags != 0 {
		w.sys(syscall.SYS_UNSHARE, u(uint64(flags)))
	}
}

// gate opens the FIFO that the go-ahead comes through. It is the first that is
// opened, so that its number is known: Self's.
func (w *world) gate() *value {
	if w.p.StartFIFO == "" {
		return nil
	}
	w.kept = Self + 1
	fd := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str(w.p.StartFIFO), n(syscall.O_RDWR|syscall.O_CLOEXEC), n(0)).keep()
	return &fd
}

// null3 puts the container's null device in the place of the host's.
func (w *world) null3(bits uint8) {
	if bits == 0 {
		return
	}
	fd := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str("/dev/null"), n(syscall.O_RDWR|syscall.O_CLOEXEC), n(0)).keep()
	for i := range 3 {
		if bits&(1<<i) != 0 {
			w.sys(syscall.SYS_DUP3, fd, n(i), n(0))
		}
	}
	w.sys(syscall.SYS_CLOSE, fd)
}

// closeOthers closes everything of the host: no directory of it may become the
// working directory.
func (w *world) closeOthers() {
	w.sys(sysCloseRange, n(w.kept), n(maxFD), n(0))
}

// mortal makes signals end a process that has not begun its program, though it may
// be the first of its pid namespace, which ignores what it does not handle.
func (w *world) mortal() {
	const withRestorer = 0x04000000 // x86 wants one, though nothing comes back from the end
	end := codeAddress + headersSize + endOfLoop()
	act := w.words(end, withRestorer, end, 0)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		w.sys(syscall.SYS_RT_SIGACTION, n(int(sig)), act, n(0), n(8))
	}
}

// namespaces joins those that exist and makes those that the fork could not.
func (w *world) namespaces() {
	for _, j := range w.p.Joins {
		fd := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str(j.Path), n(syscall.O_RDONLY|syscall.O_CLOEXEC), n(0)).keep()
		w.sys(sysSetns, fd, u(uint64(j.Flag)))
		w.sys(syscall.SYS_CLOSE, fd)
	}
	flags := w.p.Unshare
	if w.p.CgroupsLate {
		flags &^= cloneNewcgroup // it shows the groups that the process is in by then
	}
	if flags != 0 {
		w.sys(syscall.SYS_UNSHARE, u(uint64(flags)))
	}
	if flags&syscall.CLONE_NEWNET != 0 {
		w.loopback()
	}
	if h := w.p.Hostname; h != "" {
		w.sys(syscall.SYS_SETHOSTNAME, w.str(h), n(len(h)))
	}
	if d := w.p.Domainname; d != "" {
		w.sys(syscall.SYS_SETDOMAINNAME, w.str(d), n(len(d)))
	}
}

// loopback sets up the only device of a new network, as other runtimes do: nobody else
// comes to. Any socket will do.
func (l *list) loopback() {
	const ifreq = 40
	request := make([]byte, ifreq)
	copy(request, "lo")
	request[syscall.IFNAMSIZ] = syscall.IFF_UP
	fd := l.sys(syscall.SYS_SOCKET, n(syscall.AF_UNIX), n(syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC), n(0)).keep()
	l.sys(syscall.SYS_IOCTL, fd, n(syscall.SIOCSIFFLAGS), address(l.put(request))).mayFail()
	l.sys(syscall.SYS_CLOSE, fd)
}

// limits sets the resource limits.
func (l *list) limits(p *plan.Process) {
	for _, r := range p.Rlimits {
		l.sys(syscall.SYS_PRLIMIT64, n(0), n(r.Type), l.words(r.Soft, r.Hard), n(0))
	}
}

// The message that starts an Init: the path of the program, and HOME=... for an
// environment that has none.
const (
	maxPath = 4096
	maxGo   = 2 * maxPath
)

// Go is the message that starts an Init.
func Go(program, home string) ([]byte, error) {
	home = "HOME=" + home
	if len(program) >= maxPath || len(home) >= maxGo-maxPath-1 || strings.ContainsRune(program+home, 0) {
		return nil, fmt.Errorf("%w: program %q", ErrStage, program)
	}
	b := make([]byte, maxPath, maxGo)
	copy(b, program)
	return append(b, home...), nil
}

func hasHome(env []string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") && e != "HOME=" {
			return true
		}
	}
	return false
}

// u32s are numbers of 32 bits in a row.
func (l *list) u32s(all ...uint32) value {
	var b []byte
	for _, w := range all {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return address(l.put(append(b, 0, 0, 0, 0)))
}
