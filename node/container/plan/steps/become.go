package steps

import (
	"encoding/binary"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// program is what a list becomes at last.
type program struct {
	path, args, env value
	name            string // for words
}

// Exit codes of a process that could not become its program: in general, and when
// that could not be executed, as a shell has it.
const (
	codeFailed        = 128
	codeNotExecutable = 126
)

// become drops what the program must not have and executes it. A failure from here
// on has words, with the kernel's reason behind them. A user namespace is entered
// last of all.
func (l *list) become(p *plan.Process, user *value, prog program) {
	denied := l.chdir(p)
	own := ownCaps()
	if user != nil {
		l.say("enter user namespace", codeFailed)
		l.sys(sysSetns, *user, n(syscall.CLONE_NEWUSER))
		l.sys(syscall.SYS_CLOSE, *user)
		own = uint64(1)<<(lastCap()+1) - 1 // entering a user namespace gives everything in it
	}
	if p.NoNewPrivs {
		l.say("no_new_privs", codeFailed)
		l.sys(syscall.SYS_PRCTL, n(prSetNoNewPrivs), n(1), n(0), n(0), n(0))
	} else { // needs CAP_SYS_ADMIN, so before it goes
		l.seccomp(p)
	}
	l.credentials(p, own)
	l.chdirAs(p, denied)
	if p.NoNewPrivs {
		l.seccomp(p)
	}
	l.say("exec "+prog.name, codeNotExecutable)
	l.sys(syscall.SYS_EXECVE, prog.path, prog.args, prog.env)
}

func cwdOf(p *plan.Process) string {
	if p.Cwd == "" {
		return "/"
	}
	return p.Cwd
}

// chdir goes to the working directory and makes sure that it is inside the root: a
// leaked descriptor of the host must not become one (CVE-2024-21626). What is
// denied to root may be the user's (root squash): the slot says that it was.
func (l *list) chdir(p *plan.Process) slot {
	l.say("chdir to cwd (\""+cwdOf(p)+"\") set in config.json failed", codeFailed)
	denied := l.slot()
	first := l.sys(syscall.SYS_CHDIR, l.str(cwdOf(p)))
	if p.UID == 0 {
		l.inside()
		return denied
	}
	first.unless(eAcces)
	note := l.do(opSet, n(1)).into(denied)
	first.okHere()
	l.inside()
	note.okHere()
	return denied
}

func (l *list) inside() {
	l.say("current working directory is outside of the container's root", codeFailed)
	l.sys(syscall.SYS_GETCWD, address(scratchAddress+maxGo), n(pageSize)).check(checkAbsolute)
}

// chdirAs tries again as the user.
func (l *list) chdirAs(p *plan.Process, denied slot) {
	if p.UID == 0 {
		return
	}
	l.say("chdir to cwd (\""+cwdOf(p)+"\") set in config.json failed", codeFailed)
	skip := l.do(opUnless, denied.value())
	l.sys(syscall.SYS_CHDIR, l.str(cwdOf(p)))
	l.inside()
	skip.badHere()
}

func (l *list) seccomp(p *plan.Process) {
	if len(p.Seccomp) == 0 {
		return
	}
	l.say("load seccomp filter", codeFailed)
	prog := l.words(uint64(len(p.Seccomp)/8), l.put(p.Seccomp))
	l.sys(sysSeccomp, n(setModeFilter), u(uint64(p.SeccompFlags)), prog)
}

// credentials gives up root, step by step. What we have not got, we cannot give.
func (l *list) credentials(p *plan.Process, own uint64) {
	last := lastCap()
	caps := p.Caps
	if caps == nil {
		caps = &plan.Caps{Bounding: ^uint64(0), Effective: own, Permitted: own}
	}
	prctl := func(op int, args ...int) ref {
		all := [5]value{n(op)}
		for i, a := range args {
			all[i+1] = n(a)
		}
		return l.sys(syscall.SYS_PRCTL, all[:]...)
	}
	l.say("drop bounding capabilities", codeFailed)
	for c := range last + 1 {
		if caps.Bounding&(1<<c) == 0 {
			prctl(prCapbsetDrop, int(c))
		}
	}
	l.say("set user and groups", codeFailed)
	prctl(prSetKeepcaps, 1)
	groups := make([]uint32, len(p.Groups))
	for i, g := range p.Groups {
		groups[i] = uint32(g)
	}
	l.sys(syscall.SYS_SETGROUPS, n(len(groups)), l.u32s(groups...))
	l.sys(syscall.SYS_SETRESGID, n(p.GID), n(p.GID), n(p.GID))
	l.sys(syscall.SYS_SETRESUID, n(p.UID), n(p.UID), n(p.UID))
	prctl(prSetKeepcaps, 0)
	l.say("set capabilities", codeFailed)
	var data []byte
	for _, shift := range []int{0, 32} {
		for _, set := range []uint64{caps.Effective & own, caps.Permitted & own, caps.Inheritable & own} {
			data = binary.LittleEndian.AppendUint32(data, uint32(set>>shift))
		}
	}
	l.sys(syscall.SYS_CAPSET, l.words(capVersion3), address(l.put(data)))
	prctl(prCapAmbient, ambientClearAll)
	for c := range last + 1 {
		if caps.Ambient&own&(1<<c) != 0 {
			prctl(prCapAmbient, ambientRaise, int(c)).mayFail() // not inheritable: as with other runtimes, it is not given
		}
	}
}
