package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/apparmor"
	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxMounts bounds what a spec may ask for, so that a plan stays readable in one go.
const maxMounts = 10000

// translate turns a spec into a plan for the keeper and the fork flags for its
// child. It decides everything; what it returns has no choices left.
func (r *Runtime) translate(cfg *CreateConfig, sb *Sandbox) (*plan.Plan, *plan.Child, error) {
	spec := cfg.Spec
	if spec == nil || spec.Process == nil || spec.Linux == nil {
		return nil, nil, errors.New("spec has no process or no linux section")
	}
	if len(spec.Mounts) > maxMounts {
		return nil, nil, fmt.Errorf("spec has %d mounts, more than %d", len(spec.Mounts), maxMounts)
	}
	if err := checkNetDevices(spec.Linux); err != nil {
		return nil, nil, err
	}
	for _, what := range leftOut(spec) {
		r.log.Warn("not supported and left out", "id", cfg.ID, "what", what)
	}
	p := &plan.Plan{
		Version: plan.Version, Kind: plan.Init,
		Hostname: spec.Hostname, Domainname: spec.Domainname,
		Masked: once(spec.Linux.MaskedPaths), Readonly: once(spec.Linux.ReadonlyPaths),
	}
	child := &plan.Child{TTY: cfg.TTY, StdinOnce: cfg.StdinOnce, Log: cfg.LogPath}
	if err := planNamespaces(p, child, spec, sb); err != nil {
		return nil, nil, err
	}
	if err := planTime(p, spec.Linux.TimeOffsets); err != nil {
		return nil, nil, err
	}
	if err := planSysctls(p, spec.Linux.Sysctl, mappingsOf(spec, sb) != nil); err != nil {
		return nil, nil, err
	}
	if err := r.planRoot(p, cfg); err != nil {
		return nil, nil, err
	}
	maps := mappingsOf(spec, sb)
	own, err := ownMappings(spec.Mounts, maps)
	if err != nil {
		return nil, nil, err
	}
	if err := r.planMounts(p, spec, func(pm *plan.Mount, m *specs.Mount) error {
		return mapMount(pm, m, maps, func(i int) string { return r.mountPin(cfg.ID, i) }, own)
	}); err != nil {
		return nil, nil, err
	}
	planDevices(p, spec.Linux.Devices)
	proc, err := r.planProcess(spec.Process, spec.Linux.Seccomp, specs.State{ID: cfg.ID, Bundle: cfg.bundle, Annotations: spec.Annotations})
	if err != nil {
		return nil, nil, err
	}
	proc.UserNS, proc.TTY = p.Process.UserNS, cfg.TTY
	p.Process = *proc
	if p.Process.Memory, err = memoryPolicy(spec.Linux.MemoryPolicy); err != nil {
		return nil, nil, err
	}
	if p.Process.Personality, err = personality(spec.Linux.Personality); err != nil {
		return nil, nil, err
	}
	if maps != nil {
		p.Process.RootUID, p.Process.RootGID = hostID(maps.UID, 0), hostID(maps.GID, 0)
		if p.Process.UserNS == "" {
			p.Process.UserNS = filepath.Join(r.runDir(cfg.ID), userPin)
		}
	}
	return p, child, nil
}

// leftOut are the parts of a spec that a container runs without.
func leftOut(spec *specs.Spec) []string {
	var out []string
	for _, f := range []struct {
		has  bool
		what string
	}{
		{spec.Process.ApparmorProfile != "" && !apparmor.Enabled(), "AppArmor profile " + spec.Process.ApparmorProfile},
		{(spec.Process.SelinuxLabel != "" || spec.Linux.MountLabel != "") && !selinux.Enabled(), "SELinux label"},
		{spec.Linux.IntelRdt != nil, "Intel RDT"},
	} {
		if f.has {
			out = append(out, f.what)
		}
	}
	return out
}

// mappingsOf are the mappings of the user namespace that the container is in, its
// sandbox's or its own; nil when it is the host's.
func mappingsOf(spec *specs.Spec, sb *Sandbox) *IDMappings {
	if sb != nil {
		return sb.Config.UserNS
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			return &IDMappings{UID: spec.Linux.UIDMappings, GID: spec.Linux.GIDMappings}
		}
	}
	return nil
}

var namespaceFlags = map[specs.LinuxNamespaceType]uintptr{
	specs.PIDNamespace: unix.CLONE_NEWPID, specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.MountNamespace: unix.CLONE_NEWNS, specs.IPCNamespace: unix.CLONE_NEWIPC,
	specs.UTSNamespace: unix.CLONE_NEWUTS, specs.UserNamespace: unix.CLONE_NEWUSER,
	specs.CgroupNamespace: unix.CLONE_NEWCGROUP, specs.TimeNamespace: unix.CLONE_NEWTIME,
}

// planNamespaces sorts the namespaces into those the fork makes or enters, those
// the first process joins, and those it makes. A sandbox's go before the spec's.
func planNamespaces(p *plan.Plan, child *plan.Child, spec *specs.Spec, sb *Sandbox) error {
	want := map[uintptr]string{unix.CLONE_NEWNS: ""}
	for _, ns := range spec.Linux.Namespaces {
		flag, ok := namespaceFlags[ns.Type]
		if !ok {
			return fmt.Errorf("namespace %q is not supported", ns.Type)
		}
		if flag == unix.CLONE_NEWNS && ns.Path != "" {
			return errors.New("joining a mount namespace is not supported")
		}
		want[flag] = ns.Path
	}
	if sb != nil {
		sb.impose(want)
		p.Hostname, p.Domainname = "", "" // the sandbox has it
	}
	for flag, path := range want {
		switch {
		case flag == unix.CLONE_NEWPID && path != "":
			child.PIDNS = path
		case flag == unix.CLONE_NEWUSER:
			p.Process.UserNS = path
		case flag == unix.CLONE_NEWPID || flag == unix.CLONE_NEWNS:
			child.Flags |= flag
		case path != "":
			p.Joins = append(p.Joins, plan.Join{Path: path, Flag: flag})
		default:
			p.Unshare |= flag
		}
	}
	if _, own := want[unix.CLONE_NEWUTS]; !own {
		p.Hostname, p.Domainname = "", ""
	}
	return nil
}

func (r *Runtime) planRoot(p *plan.Plan, cfg *CreateConfig) error {
	propagation, err := propagationFlag(cfg.Spec.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	f, context := cfg.Rootfs, r.fileLabel(cfg.Spec)
	if f.Path == "" && len(f.Lower) == 0 {
		return errors.New("rootfs has neither a path nor layers")
	}
	if f.Path != "" && len(f.Lower) > 0 {
		return errors.New("rootfs has both a path and layers")
	}
	ro := f.ReadOnly || cfg.Spec.Root != nil && cfg.Spec.Root.Readonly
	p.Root = plan.Root{
		Lower: f.Lower, Upper: f.Upper, Work: f.Work, Path: f.Path, Readonly: ro,
		Mountpoint: filepath.Join(r.runDir(cfg.ID), "rootfs"), Propagation: propagation, Named: r.named,
		Context: context,
	}
	if f.Path == "" && f.Upper == "" {
		// An overlay wants an upper directory or two lower ones.
		switch {
		case len(f.Lower) == 1 && context != "": // and no other mount has a label of its own
			p.Root.Lower = append(slices.Clip(f.Lower), p.Root.Mountpoint)
		case len(f.Lower) == 1:
			p.Root.Path, p.Root.Lower = f.Lower[0], nil
		}
		p.Root.Readonly = true
	}
	return nil
}

// once are paths without those that have been there: to hide one twice hides nothing
// more, and leaves two mounts.
func once(paths []string) []string {
	var out []string
	for i, p := range paths {
		if !slices.Contains(paths[:i], p) {
			out = append(out, p)
		}
	}
	return out
}

// planMounts keeps the spec's order, makes sure that /dev is a fresh tmpfs, and
// spells out what "cgroup" means on this machine. Each mount is shown to mapped.
func (r *Runtime) planMounts(p *plan.Plan, spec *specs.Spec, mapped func(*plan.Mount, *specs.Mount) error) error {
	hasDev := slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return filepath.Clean(m.Destination) == "/dev" })
	if !hasDev {
		p.Mounts = append(p.Mounts, plan.Mount{
			Source: "tmpfs", Target: "/dev", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_STRICTATIME, Data: "mode=755,size=65536k",
		})
	}
	context := r.fileLabel(spec)
	defer func() {
		for i := range p.Mounts {
			inContext(&p.Mounts[i], context)
		}
	}()
	for _, m := range spec.Mounts {
		pm, err := planMount(m)
		if err == nil {
			err = mapped(&pm, &m)
		}
		if err != nil {
			return err
		}
		if readonlyDev(&pm) { // devices are still to be made
			pm.Flags &^= unix.MS_RDONLY
			p.DevReadonly = true
		}
		if pm.Type == "cgroup" && !pm.Bind {
			p.Mounts = append(p.Mounts, cgroupMounts(pm)...)
			continue
		}
		p.Mounts = append(p.Mounts, pm)
	}
	return nil
}

// readonlyDev says that a mount is a /dev that shall not be written to in the end.
func readonlyDev(m *plan.Mount) bool {
	return m.Type == "tmpfs" && !m.Bind && m.Flags&unix.MS_RDONLY != 0 && filepath.Clean("/"+m.Target) == "/dev"
}

// cgroupMounts are the mounts that a container sees its own cgroup through: the
// unified hierarchy, or a tmpfs with one directory a v1 controller.
func cgroupMounts(m plan.Mount) []plan.Mount {
	if unifiedCgroups() {
		m.Type, m.Source, m.Data = "cgroup2", "cgroup", ""
		return []plan.Mount{m}
	}
	out := []plan.Mount{{
		Source: "tmpfs", Target: m.Target, Type: "tmpfs", Data: "mode=755",
		Flags: m.Flags &^ unix.MS_RDONLY,
	}}
	for _, c := range v1Controllers() {
		one := m
		one.Target, one.Source, one.Data = filepath.Join(m.Target, c.dir), "cgroup", c.options
		out = append(out, one)
	}
	return append(out, plan.Mount{Target: m.Target, Flags: m.Flags, Remount: true})
}

// devices that every container has.
func planDevices(p *plan.Plan, extra []specs.LinuxDevice) {
	for _, d := range []struct {
		path         string
		major, minor uint32
	}{
		{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8},
		{"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
	} {
		p.Devices = append(p.Devices, plan.Device{Path: d.path, Mode: unix.S_IFCHR | 0o666, Major: d.major, Minor: d.minor})
	}
	for _, d := range extra {
		mode := uint32(0o666)
		if d.FileMode != nil {
			mode = uint32(d.FileMode.Perm())
		}
		pd := plan.Device{Path: d.Path, Mode: deviceType(d.Type) | mode, Major: uint32(d.Major), Minor: uint32(d.Minor)}
		if d.UID != nil {
			pd.UID = int(*d.UID)
		}
		if d.GID != nil {
			pd.GID = int(*d.GID)
		}
		p.Devices = append(p.Devices, pd)
	}
}

func deviceType(t string) uint32 {
	switch t {
	case "b":
		return unix.S_IFBLK
	case "p":
		return unix.S_IFIFO
	}
	return unix.S_IFCHR
}

// planProcess translates what is executed, in the container of that state.
func (r *Runtime) planProcess(in *specs.Process, filter *specs.LinuxSeccomp, of specs.State) (*plan.Process, error) {
	caps, ungranted := planCaps(in.Capabilities)
	for _, why := range ungranted {
		r.log.Warn("capability is not given", "why", why)
	}
	limits, err := planRlimits(in.Rlimits)
	if err != nil {
		return nil, err
	}
	schedule, err := planSchedule(in)
	if err != nil {
		return nil, err
	}
	out := &plan.Process{
		Args: in.Args, Env: in.Env, Cwd: in.Cwd,
		UID: int(in.User.UID), GID: int(in.User.GID), Caps: caps,
		NoNewPrivs: in.NoNewPrivileges, Rlimits: limits, OOMScoreAdj: in.OOMScoreAdj, TTY: in.Terminal,
		Schedule: schedule,
	}
	out.Env = environment(in.Env)
	for _, g := range in.User.AdditionalGids {
		out.Groups = append(out.Groups, int(g))
	}
	if in.User.Umask != nil {
		mask := int(*in.User.Umask)
		out.Umask = &mask
	}
	if s := in.ConsoleSize; s != nil {
		out.Rows, out.Cols = uint16(s.Height), uint16(s.Width)
	}
	out.Labels = r.labels(in)
	if in.SelinuxLabel != "" && selinux.Enabled() {
		out.Keyring.Label = in.SelinuxLabel
	}
	if filter != nil {
		prog, err := r.filters.Compile(filter)
		if err != nil {
			return nil, err
		}
		out.Seccomp, out.SeccompFlags = prog.Code, uintptr(prog.Flags)
		if out.Listener, err = planListener(prog, filter, of); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// environment is what a program gets of the variables of its spec: of those that are
// there several times the last, which is what most programs take, and no empty HOME,
// which stands for the user's own.
func environment(in []string) []string {
	last := make(map[string]int, len(in))
	for i, e := range in {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	out := make([]string, 0, len(in)+1)
	for i, e := range in {
		if name, value, _ := strings.Cut(e, "="); last[name] == i && (name != "HOME" || value != "") {
			out = append(out, e)
		}
	}
	return out
}

// labels are what the security modules of this kernel shall know a process by.
func labels(p *specs.Process) []plan.Label {
	var out []plan.Label
	if p.ApparmorProfile != "" && apparmor.Enabled() {
		attr, text := apparmor.OnExec(p.ApparmorProfile)
		out = append(out, plan.Label{Attr: attr, Text: text})
	}
	if p.SelinuxLabel != "" && selinux.Enabled() {
		attr, text := selinux.OnExec(p.SelinuxLabel)
		out = append(out, plan.Label{Attr: attr, Text: text})
	}
	return out
}

// bindSourcesExist says early, and by name, what a bind mount has not got, and
// notes what it has. What is below a root that has a path of its own may be there only
// once the mounts before it are: a stage looks then.
func bindSourcesExist(p *plan.Plan, root string) error {
	for i := range p.Mounts {
		m := &p.Mounts[i]
		if !m.Bind || root != "" && strings.HasPrefix(filepath.Clean(m.Source), filepath.Clean(root)+"/") {
			continue
		}
		st, err := os.Stat(m.Source)
		if err != nil {
			return fmt.Errorf("mount on %q: source: %w", m.Target, err)
		}
		m.Dir, m.File = st.IsDir(), !st.IsDir()
	}
	return nil
}
