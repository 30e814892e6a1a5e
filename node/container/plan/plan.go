// Package plan is the contract between the container runtime and the keeper,
// the tiny program that parents containers. The runtime decides everything and
// writes it down as a Plan; the keeper has no choices left and does what it says.
//
// The package imports the standard library only and little of it, because the
// keeper is started once per container and its size is its start-up time.
package plan

import "syscall"

// Version of the protocol and of the Plan. A runtime replaces a keeper with
// another version; the successor adopts its containers. Shutdown keeps its form
// across versions. A field that changes what a plan or a request means is a new version,
// or a Level that is asked for: a keeper that does not know it would leave it out, and
// say nothing (see TestShape).
const Version = 4

// Plan is everything that the first process of a container, or an exec into a
// running one, needs to know. Kind chooses which of the two.
type Plan struct {
	Version int
	Kind    Kind
	// CgroupProcs are the cgroup.procs or tasks files to join, first thing, by host
	// path.
	CgroupProcs []string
	// CgroupsLate says that these are still being made: the process joins them, and
	// leaves the cgroup namespace that it was born in, when it is told to by a message
	// on its control socket. A stage cannot wait for that.
	CgroupsLate bool `json:",omitempty"`
	// Joins are namespaces entered by path, in order. Pid and user namespaces
	// are never here: those must be entered before the fork (see Child). A time
	// namespace is entered last, by a program with one thread.
	Joins []Join
	// Unshare are CLONE_NEW* flags of namespaces made after the cgroup was
	// joined (net, ipc, uts, cgroup; mount and pid are made by the fork).
	Unshare uintptr
	// TimeOffsets is written to timens_offsets of a time namespace that Unshare makes.
	TimeOffsets string `json:",omitempty"`
	// Hostname and Domainname are set when not empty.
	Hostname, Domainname string
	// Sysctls are namespaced kernel parameters, in dotted or slashed form.
	Sysctls map[string]string
	Root    Root
	Mounts  []Mount
	// Devices are made on the fresh /dev when it is a tmpfs of ours.
	Devices []Device
	// DevReadonly takes the write access from /dev when everything is there.
	DevReadonly bool `json:",omitempty"`
	// Masked paths are hidden, Readonly paths lose their write access. A path
	// that the image has not got is skipped.
	Masked, Readonly []string
	Process          Process
	// StartFIFO, when set, is where the go-ahead comes from instead of the control
	// socket: whoever created the container need not be there any more.
	StartFIFO string
	// Hooks are programs to run on the way; nil asks nobody. With them the stage
	// reports Report.Hooks once its mounts are there, and goes on when it has been
	// sent the state that they read.
	Hooks *Hooks
	// Foreign is the runtime of a Foreign plan.
	Foreign *ForeignRuntime `json:",omitempty"`
}

// ForeignRuntime is another OCI runtime, and what it is given: an executable, the
// container's ID, and a directory with its config.json, where the runtime's state
// goes as well.
type ForeignRuntime struct {
	Path, Bundle, ID string
	// Restore, when there is one, is done instead: the container comes out of a checkpoint.
	Restore *Restore `json:",omitempty"`
}

// Restore is a program that brings processes back, stopped, and writes the number of the
// first to a file.
type Restore struct {
	Path      string
	Args, Env []string
	// Open are files and namespaces that it has as descriptors RestoreOpen and up; the
	// container's own three are at RestoreStdio. What it says goes to Words.
	Open    []string
	Words   string
	PidFile string
	// Cgroup is the directory of the unified hierarchy that it, and so the container, is
	// born in; empty for none. CgroupNS has it begin with a cgroup namespace there.
	Cgroup   string
	CgroupNS bool
	// Leave lets go of the processes at once, to whoever parents the orphans of the caller;
	// they are not stopped.
	Leave bool
	// Halt, when there is one, has the container stand still from before the program lets
	// go of it: whoever wants it to go on thaws it.
	Halt *Halt `json:",omitempty"`
}

// Halt says how the container of a Restore stands still. The program calls the keeper at
// certain moments, with no arguments: what it must know is in the environment.
type Halt struct {
	// Option is the program's for the path of what it calls.
	Option string
	// Freezer is the file by which the container's cgroup is frozen, and Frozen what is
	// written to it.
	Freezer, Frozen string
	// Homes are the files cgroup.procs of the cgroups that the program goes to before: it
	// begins in those of the container, and would stand still as well.
	Homes []string
}

// What a keeper that is called for a Halt finds in its environment.
const (
	// HaltHow is a Halt as JSON, HaltStage the number of the process that has started the
	// program.
	HaltHow   = "SAMPAN_HALT"
	HaltStage = "SAMPAN_STAGE"
)

// Descriptors of the program of a Restore.
const (
	RestoreStdio = 3
	RestoreOpen  = 6
)

// Hooks are those of the OCI runtime specification that run in the container's
// namespaces: CreateContainer before the root is entered, StartContainer after,
// just before the program.
type Hooks struct {
	CreateContainer, StartContainer []Hook
}

// Hook is one program. A failure of one ends the container.
type Hook struct {
	Path      string
	Args, Env []string
	// Timeout in seconds; zero means none.
	Timeout int
}

// Kind of a plan.
type Kind string

// The things that a keeper's child can be.
const (
	// Init is the first process of a container: it builds its own world.
	Init Kind = "init"
	// Exec is a further process in a running container.
	Exec Kind = "exec"
	// Pause is the pid 1 of a sandbox whose containers share one pid namespace:
	// it reaps orphans and does nothing else.
	Pause Kind = "pause"
	// Foreign is the parent of a container that another runtime puts together.
	Foreign Kind = "foreign"
)

// Join is a namespace entered through a file.
type Join struct {
	Path string
	// Flag is the CLONE_NEW* flag that the file must be a namespace of.
	Flag uintptr
}

// Root is the root filesystem: an overlay of Lower (topmost first) and Upper, or
// the directory Path. The overlay is mounted in the container's own mount
// namespace, so that nothing of it is ever to be cleaned up on the host.
type Root struct {
	Lower       []string
	Upper, Work string
	Path        string
	// Mountpoint is an existing empty directory on the host that the root is
	// attached to for the moment before the pivot.
	Mountpoint string
	Readonly   bool
	// Mapped says that with a user namespace the files are owned as it sees them
	// already: they are not shown through its mapping.
	Mapped bool
	// Propagation of the root mount, as MS_* flags.
	Propagation uintptr
	// Context is the SELinux label of everything in an overlay, and of what hides a
	// directory; empty leaves it to the policy.
	Context string `json:",omitempty"`
	// Named says that the kernel takes the layers of an overlay, of the root as of a
	// volume, by mount(2) only, which needs a name for the mount: see package overlay.
	Named bool
}

// Parent is the propagation of the mount that the root is attached to: nothing spreads from
// it to the host. It takes part in what the host mounts where the root itself is to.
func (r *Root) Parent() uintptr {
	if r.Propagation&syscall.MS_SLAVE != 0 {
		return syscall.MS_SLAVE
	}
	return syscall.MS_PRIVATE
}

// Mount is one entry of the mount list, already translated to kernel flags.
type Mount struct {
	Source, Target, Type string
	// Flags are MS_* flags without propagation and without MS_REC.
	Flags uintptr
	// Clear are MS_* flags that the options take away from a bind mount's source.
	Clear uintptr
	// Bind and Recursive say bind and rbind.
	Bind, Recursive bool
	// Dir and File say what the source of a bind mount is; with neither it is looked
	// at when it is mounted.
	Dir, File bool
	// Remount gives what is mounted at Target already the Flags, and does no more.
	Remount bool
	// IDMap shows the files with the mapping of Process.UserNS.
	IDMap bool
	// IDMapTree does so with all mounts below it as well.
	IDMapTree bool
	// UserNS is a user namespace, by path, whose mapping that is instead.
	UserNS string `json:",omitempty"`
	// CopyUp fills a fresh tmpfs with what it covers.
	CopyUp bool `json:",omitempty"`
	// SetAll are mount attributes (MOUNT_ATTR_*) for the whole tree of a bind
	// mount (rro, rnosuid ...).
	SetAll uint64
	// ClearAll are those that it loses.
	ClearAll uint64 `json:",omitempty"`
	// Propagation are MS_SHARED, MS_SLAVE ... with or without MS_REC, one mount
	// call each.
	Propagation []uintptr
	// Data are the filesystem's own options, comma separated.
	Data string
	// Context is the SELinux label of everything on a new filesystem; empty leaves it
	// to the policy. It has commas in it, and so is not part of Data.
	Context string `json:",omitempty"`
	// RootLabel is that of the root alone of one that takes no Context.
	RootLabel string `json:",omitempty"`
}

// Device is a device node.
type Device struct {
	Path         string
	Mode         uint32
	Major, Minor uint32
	UID, GID     int
}

// Process is what is executed at last.
type Process struct {
	Args, Env []string
	Cwd       string
	UID, GID  int
	Groups    []int
	Umask     *int
	// Caps are the five capability sets as bit masks; nil keeps the keeper's.
	Caps *Caps
	// UserNS is a user namespace that is entered last of all, by path. The root
	// and the mounts marked IDMap are then shown with its mapping.
	UserNS string
	// RootUID and RootGID are the host's ids of that namespace's root.
	RootUID, RootGID int
	// NoNewPrivs keeps setuid programs from gaining anything.
	NoNewPrivs bool
	// Keyring is the program's session keyring. It comes before everything else.
	Keyring Keyring `json:",omitzero"`
	// Labels are what the kernel's security modules shall know the program by.
	Labels []Label `json:",omitempty"`
	// Seccomp is a ready classic BPF program, 8 bytes an instruction.
	Seccomp []byte
	// SeccompFlags are SECCOMP_FILTER_FLAG_*.
	SeccompFlags uintptr
	// Listener is told of the calls that the filter asks about; nil when it asks nobody.
	Listener    *Listener `json:",omitempty"`
	Rlimits     []Rlimit
	OOMScoreAdj *int
	// Schedule is what the program has of processors and disks; nil is what everybody has.
	Schedule *Schedule `json:",omitempty"`
	// Memory says which memory nodes the program's memory comes from; nil is what
	// everybody has.
	Memory *MemoryPolicy `json:",omitempty"`
	// Personality is for personality(2); nil leaves it.
	Personality *uint32 `json:",omitempty"`
	TTY         bool
	Rows, Cols  uint16
	// Null has a bit for each of the first three descriptors that is the host's null
	// device: an Init has its container's own in the place.
	Null uint8 `json:",omitempty"`
	// Preserved is how many descriptors after stderr the program inherits. The
	// stage gets them after those of its own.
	Preserved int
}

// Schedule is a share of processors and disks in the kernel's own words. What is zero
// stays as it is.
type Schedule struct {
	// Attr is the structure that sched_setattr(2) takes.
	Attr []byte `json:",omitempty"`
	// IOPriority is for ioprio_set(2).
	IOPriority int `json:",omitempty"`
	// CPUsBefore and CPUsAfter are masks for sched_setaffinity(2), before the process is
	// in its cgroups, and when it is.
	CPUsBefore, CPUsAfter []byte `json:",omitempty"`
}

// Listener is who listens on a unix socket for the descriptor of a seccomp filter.
type Listener struct {
	Path string
	// State is what it is told with it: the specification's container process state, a
	// JSON object without pids.
	State string
	// PID is that of the container's first process, for another one.
	PID int `json:",omitempty"`
}

// Label is what a thread says to a security module (AppArmor, SELinux) about the program that
// it executes next: Text, written to Attr below its own directory in /proc.
type Label struct{ Attr, Text string }

// Keyring is the session keyring of a process: a new one, in which nobody else's keys are
// and which nobody else finds. Keep leaves it that of whoever starts it. Label is what
// SELinux knows the keys by that it makes; empty leaves it to the policy.
type Keyring struct {
	Keep  bool   `json:",omitempty"`
	Label string `json:",omitempty"`
}

// JoinSession is keyctl(2)'s word for a new session keyring.
const JoinSession = 1

// MemoryPolicy is what set_mempolicy(2) takes: a mode with its flags, and a mask of nodes.
type MemoryPolicy struct {
	Mode  uint32
	Nodes []byte `json:",omitempty"`
}

// Caps are capability sets, one bit a capability.
type Caps struct {
	Bounding, Effective, Inheritable, Permitted, Ambient uint64
}

// Rlimit is one resource limit by the kernel's number.
type Rlimit struct {
	Type       int
	Soft, Hard uint64
}
