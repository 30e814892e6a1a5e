// Package spec turns what the CRI asks for into an OCI runtime specification: a
// pure decision, made of a container's and a sandbox's configuration, the
// image's configuration and a few facts about the host. Nothing of an image's
// configuration reaches a host path or an annotation.
package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrInvalid says that the request itself cannot be met, whatever the host.
var ErrInvalid = errors.New("invalid container configuration")

// Files are a sandbox's files that its containers see, by host path. An empty
// path leaves the image's own.
type Files struct {
	Hostname, Hosts, ResolvConf string
	// Shm is the directory that is /dev/shm.
	Shm string
}

// Input is everything a specification is made of.
type Input struct {
	Container *rt.ContainerConfig
	Sandbox   *rt.PodSandboxConfig
	Image     ocispec.ImageConfig
	User      User
	Files     Files
	// ImageMounts are the lower directories, topmost first, of each mount of
	// Container.Mounts that names an image, by its index.
	ImageMounts map[int][]string
	// Nothing is an empty directory that lies below images' single layers where these
	// are to have a label of their own; empty where they are not.
	Nothing     string
	Namespaces  []specs.LinuxNamespace
	CgroupsPath string
	// UserNamespace says that the sandbox's users are others than the host's.
	UserNamespace bool
	// Hostname is what HOSTNAME holds.
	Hostname string
	// HostCaps are the capabilities that there are to give, CAP_ names.
	HostCaps []string
	// AppArmor is the profile that the container runs under, "" for none.
	AppArmor string
	// SELinux are the labels that it has, and its files.
	SELinux Labels
	// PidsLimit bounds the container's processes; 0 is no limit.
	PidsLimit int64
}

// Build makes the specification. An error that wraps ErrInvalid is the
// caller's fault; any other is the host's.
func Build(in Input) (*specs.Spec, error) {
	sc := in.Container.GetLinux().GetSecurityContext()
	process, err := process(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version: specs.Version,
		Process: process,
		Root:    &specs.Root{Path: "rootfs", Readonly: sc.GetReadonlyRootfs()},
		Linux: &specs.Linux{
			Namespaces:  in.Namespaces,
			CgroupsPath: in.CgroupsPath,
			MountLabel:  in.SELinux.Mount,
			Resources:   Resources(in.Container.GetLinux().GetResources()),
		},
	}
	pids, err := pidsLimit(in.Sandbox, in.PidsLimit)
	if err != nil {
		return nil, err
	}
	if pids > 0 && s.Linux.Resources.Pids == nil {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	}
	if err := mounts(in, s); err != nil {
		return nil, err
	}
	if err := devices(in, s); err != nil {
		return nil, err
	}
	if sc.GetPrivileged() {
		return s, nil
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = hiddenPaths(sc)
	s.Linux.Seccomp, err = seccompOf(sc, s)
	return s, err
}

func process(in Input) (*specs.Process, error) {
	c := in.Container
	sc := c.GetLinux().GetSecurityContext()
	args, err := arguments(c, in.Image)
	if err != nil {
		return nil, err
	}
	cwd := c.GetWorkingDir()
	if cwd == "" {
		cwd = in.Image.WorkingDir
	}
	cwd = path.Join("/", cwd)
	caps, err := capabilities(sc, in.HostCaps)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:        c.GetTty(),
		User:            specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups},
		Args:            args,
		Env:             environment(in),
		Cwd:             cwd,
		Capabilities:    caps,
		NoNewPrivileges: sc.GetNoNewPrivs(),
		ApparmorProfile: in.AppArmor,
		SelinuxLabel:    in.SELinux.Process,
	}
	if r := c.GetLinux().GetResources(); r != nil {
		adj := int(r.GetOomScoreAdj())
		p.OOMScoreAdj = &adj
	}
	p.Rlimits, err = Rlimits(in.Sandbox)
	return p, err
}

// arguments follow Docker: a command of the pod's own replaces both entry point
// and arguments of the image.
func arguments(c *rt.ContainerConfig, img ocispec.ImageConfig) ([]string, error) {
	command, args := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		command = img.Entrypoint
		if len(args) == 0 {
			args = img.Cmd
		}
	}
	all := append(append([]string{}, command...), args...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no command specified, and image %q has none: %w", c.GetImage().GetImage(), ErrInvalid)
	}
	return all, nil
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is in rising order of precedence: defaults, image, pod.
func environment(in Input) []string {
	env := variables{index: map[string]int{}}
	env.set(defaultPath)
	if in.Container.GetTty() {
		env.set("TERM=xterm")
	}
	if in.Hostname != "" {
		env.set("HOSTNAME=" + in.Hostname)
	}
	for _, kv := range in.Image.Env {
		env.set(kv)
	}
	for _, kv := range in.Container.GetEnvs() {
		env.set(kv.GetKey() + "=" + string(kv.GetValue()))
	}
	return env.list
}

// Homely is an environment in which HOME follows the user, unless somebody said
// otherwise. It is the last word about it, after that of devices, and the last variable:
// runc and crun add theirs when everything else is there.
func Homely(env []string, u User) []string {
	if u.Home == "" || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		return env
	}
	return append(slices.Clip(env), "HOME="+u.Home)
}

// Override is env with more, NAME=VALUE each, where those of more win.
func Override(env, more []string) []string {
	all := variables{index: map[string]int{}}
	for _, kv := range slices.Concat(env, more) {
		all.set(kv)
	}
	return all.list
}

// variables are an environment in which the last value of a name wins.
type variables struct {
	list  []string
	index map[string]int
}

func (v *variables) set(kv string) {
	name, _, ok := strings.Cut(kv, "=")
	if !ok || name == "" {
		return
	}
	if i, known := v.index[name]; known {
		v.list[i] = kv
		return
	}
	v.index[name] = len(v.list)
	v.list = append(v.list, kv)
}

// hiddenPaths are the pod's; a request without any security context at all gets
// the defaults.
func hiddenPaths(sc *rt.LinuxContainerSecurityContext) (masked, readonly []string) {
	if sc != nil {
		return sc.GetMaskedPaths(), sc.GetReadonlyPaths()
	}
	return []string{
			"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
			"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
			"/sys/firmware", "/sys/devices/virtual/powercap",
		}, []string{
			"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
		}
}
