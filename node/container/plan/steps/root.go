package steps

import (
	"path"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/plan/overlay"
)

// buildRoot mounts the root and everything in it. Each target is found from the
// root's descriptor, never by a path of the host, and each mount is made detached
// and then moved onto the descriptor of its target.
func (w *world) buildRoot() {
	r := &w.p.Root
	sources := make([]*value, len(w.p.Mounts))
	if !w.bare {
		w.propagate("/", propagation(r))
		w.peers(sources)
		w.secludeParent(r.Mountpoint, r.Parent())
	}
	w.root = w.layers(r)
	at := r.Mountpoint
	if w.bare {
		for i := range w.p.Mounts {
			sources[i] = w.source(&w.p.Mounts[i])
		}
		w.leaveHost()
		at = "/"
	}
	onto := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str(at), n(oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC), n(0)).keep()
	w.attach(w.root, onto)
	for i := range w.p.Mounts {
		m := &w.p.Mounts[i]
		if strings.HasPrefix(m.Type, "cgroup") {
			w.joinLate()
		}
		if sources[i] == nil {
			sources[i] = w.source(m)
		}
		w.mount(m, sources[i])
	}
	w.joinLate()
	if cwd := path.Clean("/" + w.p.Process.Cwd); cwd != "/" { // while the root can still be written
		w.directory(cwd)
	}
}

// propagation is what the mounts of the host have for the container.
func propagation(r *plan.Root) uintptr {
	if r.Propagation == 0 {
		return syscall.MS_SLAVE | syscall.MS_REC
	}
	return r.Propagation
}

// layers are the root, detached.
func (w *world) layers(r *plan.Root) value {
	if r.Path == "" {
		return w.overlay(r)
	}
	root := w.sys(sysOpenTree, u(atFdcwd), w.str(r.Path), n(openTreeClone|openTreeCloexec|atRecursive)).keep()
	w.ofHost(root)
	return root
}

// Bare says whether a container can begin in a mount namespace with nothing in it: then
// it need not copy all mounts of the host, and end them again. Layers that have to be
// mounted under a name have it in the host's.
func Bare(p *plan.Plan) bool {
	how := propagation(&p.Root)
	return p.Kind == plan.Init && !p.Root.Named && !p.CgroupsLate && how&syscall.MS_REC != 0 && how&syscall.MS_UNBINDABLE == 0
}

// ofHost gives a tree of the host's mounts, not attached yet, the propagation that a copy
// of all of them would have got.
func (w *world) ofHost(tree value) {
	if w.bare {
		w.setattr(tree, atRecursive, 0, 0, uint64(propagation(&w.p.Root)&^syscall.MS_REC))
	}
}

// leaveHost takes the process from the host's mount namespace into one of its own with
// nothing in it. Before, it attaches nothing.
func (w *world) leaveHost() {
	w.sys(sysSetns, n(Target), n(syscall.CLONE_NEWNS))
	w.sys(syscall.SYS_UNSHARE, n(syscall.CLONE_NEWNS))
}

// peers takes what is bound from the host while it still shares mounts with it, if it
// shall: the mount that holds the root will not, and volumes mostly lie on that one. What
// lies in the root is there only later.
func (w *world) peers(sources []*value) {
	if propagation(&w.p.Root)&(syscall.MS_SHARED|syscall.MS_SLAVE) == 0 {
		return
	}
	for i := range w.p.Mounts {
		if m := &w.p.Mounts[i]; m.Bind && !m.Remount && !strings.HasPrefix(m.Source+"/", w.p.Root.Mountpoint+"/") {
			sources[i] = w.source(m)
		}
	}
}

// secludeParent keeps the root mount from spreading to the host: it finds the
// mount that holds name and gives it another propagation.
func (w *world) secludeParent(name string, propagation uintptr) {
	var found []ref
	for p := path.Clean(name); ; p = path.Dir(p) {
		r := w.propagate(p, propagation)
		if p == "/" || p == "." {
			break
		}
		found = append(found, r.unless(eInval))
	}
	for _, r := range found {
		r.okHere()
	}
}

// overlay makes the root of layers. Where these go by mount(2) only, it has a name for
// a moment: fits has seen to it that theirs are not too long.
func (w *world) overlay(r *plan.Root) value {
	if !r.Named {
		return w.filesystem("overlay", "overlay", options(r), 0)
	}
	data, _ := layersOf(r).Data()
	w.sys(syscall.SYS_MOUNT, w.str("overlay"), w.str(r.Mountpoint), w.str("overlay"), n(0), w.str(data))
	root := w.sys(sysOpenTree, u(atFdcwd), w.str(r.Mountpoint), n(openTreeClone|openTreeCloexec)).keep()
	w.sys(syscall.SYS_UMOUNT2, w.str(r.Mountpoint), n(syscall.MNT_DETACH))
	return root
}

func layersOf(r *plan.Root) overlay.Layers {
	return overlay.Layers{Lower: r.Lower, Upper: r.Upper, Work: r.Work, Context: r.Context}
}

// inContext adds the label that everything on a new file system has. It is one option,
// though there are commas in it.
func inContext(options []string, label string) []string {
	if label == "" {
		return options
	}
	return append(options, "context="+label)
}

// options are those of an overlay, one a layer.
func options(r *plan.Root) []string {
	var out []string
	for _, l := range r.Lower {
		out = append(out, overlay.Layer+l)
	}
	if r.Upper != "" {
		out = append(out, "upperdir="+r.Upper, "workdir="+r.Work)
	}
	return inContext(out, r.Context)
}

// filesystem makes a detached mount. Its context stays open until closeOthers.
func (w *world) filesystem(kind, source string, options []string, attrs uint64) value {
	ctx := w.sys(sysFsopen, w.str(kind), n(fsopenCloexec)).keep()
	if source == "" {
		source = kind
	}
	w.sys(sysFsconfig, ctx, n(fsconfigSetString), w.str("source"), w.str(source), n(0))
	for _, o := range options {
		key, value, has := strings.Cut(o, "=")
		if layer, ok := strings.CutPrefix(o, overlay.Layer); ok {
			key, value = "lowerdir+", layer
		}
		if has {
			w.sys(sysFsconfig, ctx, n(fsconfigSetString), w.str(key), w.str(value), n(0))
		} else {
			w.sys(sysFsconfig, ctx, n(fsconfigSetFlag), w.str(key), n(0), n(0))
		}
	}
	w.sys(sysFsconfig, ctx, n(fsconfigCreate), n(0), n(0), n(0))
	return w.sys(sysFsmount, ctx, n(fsmountCloexec), u(attrs)).keep()
}

// mount makes one mount of the list; without a source it changes one.
func (w *world) mount(m *plan.Mount, source *value) {
	if source == nil {
		fd := w.openat2(w.root, m.Target, w.how(oPath, 0, inRoot)).keep()
		w.setattr(fd, 0, attrsOf(m.Flags), 0, 0)
		return
	}
	from := *source
	resolve := uint64(inRoot)
	if m.Type == "proc" || m.Type == "sysfs" {
		resolve |= resolveNoSymlinks // see the stage's
	}
	w.attach(from, w.target(m.Target, !m.Bind || m.Dir, resolve))
	for _, p := range m.Propagation {
		flags := 0
		if p&syscall.MS_REC != 0 {
			flags = atRecursive
		}
		w.setattr(from, flags, 0, 0, uint64(p&^syscall.MS_REC))
	}
	if isDev(m) {
		w.devices(from)
	}
}

// source makes what is to be mounted, detached; nil is nothing.
func (w *world) source(m *plan.Mount) *value {
	if m.Remount {
		return nil
	}
	if !m.Bind {
		var options []string
		if m.Data != "" {
			options = strings.Split(m.Data, ",")
		}
		fresh := w.filesystem(m.Type, m.Source, inContext(options, m.Context), attrsOf(m.Flags))
		if m.RootLabel != "" {
			w.labelRoot(fresh, m.RootLabel)
		}
		return &fresh
	}
	flags := openTreeClone | openTreeCloexec
	if m.Recursive {
		flags |= atRecursive
	}
	fd := w.sys(sysOpenTree, u(atFdcwd), w.str(m.Source), n(flags)).keep()
	w.ofHost(fd)
	set, unset := attrsOf(m.Flags), attrsOf(m.Clear)
	if (set|unset)&attrAtime != 0 { // one field, which changes as a whole
		unset |= attrAtime
	}
	if set|unset != 0 {
		w.setattr(fd, 0, set, unset, 0)
	}
	if m.SetAll|m.ClearAll != 0 {
		w.setattr(fd, atRecursive, m.SetAll, m.ClearAll, 0)
	}
	return &fd
}

// labelRoot labels the root of a new mount, which is reached by going there. One that
// refuses keeps the label that the policy gives it.
func (w *world) labelRoot(root value, label string) {
	w.sys(syscall.SYS_FCHDIR, root)
	w.sys(syscall.SYS_SETXATTR, w.str("."), w.str("security.selinux"), w.str(label), n(len(label)), n(0)).mayFail()
	w.sys(syscall.SYS_CHDIR, w.str("/"))
}

// target opens, or makes, what a mount goes onto. It cannot leave the root.
func (w *world) target(name string, dir bool, resolve uint64) value {
	s := w.slot()
	there := w.openat2(w.root, name, w.how(oPath, 0, resolve)).into(s).unless(eNoent)
	clean := path.Clean("/" + name)
	parent := w.directory(path.Dir(clean))
	base := path.Base(clean)
	if dir {
		w.sys(syscall.SYS_MKDIRAT, parent, w.str(base), n(0o755)).unless(eExist)
	} else {
		file := w.how(syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644, resolveBeneath|resolveNoSymlinks)
		w.openat2(parent, base, file).unless(eExist)
	}
	w.openat2(w.root, name, w.how(oPath, 0, resolve)).into(s)
	there.okHere()
	return s.value()
}

// directory opens a directory inside the root, by its clean path, and makes what
// is missing of it.
func (w *world) directory(name string) value {
	if name == "/" {
		return w.root
	}
	s, how := w.slot(), w.how(oPath|syscall.O_DIRECTORY, 0, inRoot)
	there := w.openat2(w.root, name, how).into(s).unless(eNoent)
	parent := w.directory(path.Dir(name))
	w.sys(syscall.SYS_MKDIRAT, parent, w.str(path.Base(name)), n(0o755)).unless(eExist)
	w.openat2(w.root, name, how).into(s)
	there.okHere()
	return s.value()
}

// devices makes the device nodes and links on the fresh tmpfs of /dev.
func (w *world) devices(dev value) {
	for i := range w.p.Devices {
		d := &w.p.Devices[i]
		name := w.str(path.Base(d.Path))
		number := d.Minor&0xff | d.Major<<8 | (d.Minor&^0xff)<<12
		w.sys(syscall.SYS_MKNODAT, dev, name, u(uint64(d.Mode)), u(uint64(number))).unless(eExist)
		if d.UID != 0 || d.GID != 0 {
			w.sys(syscall.SYS_FCHOWNAT, dev, name, n(d.UID), n(d.GID), n(0))
		}
		if d.Path == "/dev/null" {
			w.null = w.openat2(dev, "null", w.how(oPath|syscall.O_NOFOLLOW, 0, resolveBeneath)).keep()
		}
	}
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	} {
		w.sys(syscall.SYS_SYMLINKAT, w.str(l[0]), dev, w.str(l[1])).unless(eExist)
	}
}

// enterRoot makes the root the root of the mount namespace, leaves the host's
// behind, and hides what must not be seen.
func (w *world) enterRoot() {
	w.sysctls()
	old := w.sys(syscall.SYS_OPENAT, u(atFdcwd), w.str("/"), n(oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC), n(0)).keep()
	w.sys(syscall.SYS_FCHDIR, w.root)
	w.sys(syscall.SYS_PIVOT_ROOT, w.str("."), w.str("."))
	w.sys(syscall.SYS_FCHDIR, old)
	w.propagate(".", syscall.MS_SLAVE|syscall.MS_REC)
	w.sys(syscall.SYS_UMOUNT2, w.str("."), n(syscall.MNT_DETACH))
	w.sys(syscall.SYS_CHDIR, w.str("/"))
	for _, name := range w.p.Readonly {
		w.readonly(name)
	}
	for _, name := range w.p.Masked {
		w.mask(name)
	}
	if p := w.p.Root.Propagation; p != 0 {
		flags := 0
		if p&syscall.MS_REC != 0 {
			flags = atRecursive
		}
		w.setattr(w.root, flags, 0, 0, uint64(p&^syscall.MS_REC))
	}
	if w.p.Root.Readonly {
		w.setattr(w.root, 0, attrRdonly, 0, 0)
	}
}

// sysctls are written through a procfs of our own that is attached nowhere, so
// that nothing in the image can be in the way.
func (w *world) sysctls() {
	if len(w.p.Sysctls) == 0 {
		return
	}
	proc := w.filesystem("proc", "proc", nil, 0)
	for name, text := range w.p.Sysctls {
		if !strings.Contains(name, "/") {
			name = strings.ReplaceAll(name, ".", "/")
		}
		fd := w.openat2(proc, "sys/"+name, w.how(syscall.O_WRONLY, 0, resolveBeneath|resolveNoSymlinks|resolveNoXdev)).keep()
		w.sys(syscall.SYS_WRITE, fd, w.str(text), n(len(text)))
		w.sys(syscall.SYS_CLOSE, fd)
	}
}

// readonly takes write access from a path that the image may not have.
func (w *world) readonly(name string) {
	open := w.openat2(w.root, name, w.how(oPath, 0, inRoot)).unless(eNoent, eNotdir)
	at := open.keep()
	fd := w.sys(sysOpenTree, at, w.str(""), n(openTreeClone|openTreeCloexec|atRecursive|atEmptyPath)).keep()
	w.setattr(fd, atRecursive, attrRdonly, 0, 0)
	w.attach(fd, at)
	open.badHere()
}

// mask covers a directory with an empty one, all with the same, and a file with
// the null device.
func (w *world) mask(name string) {
	s := w.slot()
	dir := w.openat2(w.root, name, w.how(oPath|syscall.O_DIRECTORY, 0, inRoot)).into(s).unless(eNoent, eNotdir)
	// No directory; nothing at all, or a file.
	file := w.openat2(w.root, name, w.how(oPath, 0, inRoot)).into(s).unless(eNoent, eNotdir)
	w.attach(w.clone(w.null), s.value())
	covered := w.do(opSet)
	dir.okHere()
	w.attach(w.empty(), s.value())
	file.badHere()
	covered.okHere()
}

func (w *world) clone(fd value) value {
	return w.sys(sysOpenTree, fd, w.str(""), n(openTreeClone|openTreeCloexec|atEmptyPath)).keep()
}

// empty is a directory with nothing in it, which nobody can change: the first is
// made, further ones are the same again.
func (w *world) empty() value {
	if w.cover == nil {
		none := w.slot().value()
		w.cover = &none
	}
	s := w.slot()
	// Which of the masked paths are there is not known before: the first that is makes it.
	fresh := w.do(opUnless, *w.cover)
	w.sys(sysOpenTree, *w.cover, w.str(""), n(openTreeClone|openTreeCloexec|atEmptyPath)).into(s)
	have := w.do(opSet)
	fresh.badHere()
	made := w.filesystem("tmpfs", "tmpfs", inContext([]string{"nr_blocks=1", "nr_inodes=1"}, w.p.Root.Context), attrRdonly)
	w.do(opSet, made).into(slot(w.cover.n))
	w.do(opSet, made).into(s)
	have.okHere()
	return s.value()
}
