package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// State of a container.
type State string

// The states, in the only order in which they follow each other.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Status is what is known about a container.
type Status struct {
	ID, SandboxID string
	State         State
	// PID is the first process on the host, 0 when it has ended.
	PID                   int
	CreatedAt             time.Time
	StartedAt, FinishedAt time.Time // zero when it has not happened
	// ExitCode is 128 and the signal for one that was killed, 128 when Start
	// failed, and 255 when nobody could read it (with Unknown).
	ExitCode  int
	Unknown   bool
	OOMKilled bool
	// Error says why Start failed.
	Error   string
	LogPath string
	Cgroup  string
}

// The files of a container's directory.
const (
	stateFile = "state.json"
	planFile  = "plan.json"
	exitFile  = "exit.json"
)

// record is what is on disk about a container.
type record struct {
	ID, SandboxID string
	State         State
	PID           int
	// Ticks is the start time of PID as /proc has it; with Boot it keeps another
	// process with the same number from being taken for ours.
	Ticks                            uint64
	Boot                             string
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int
	Unknown, OOMKilled               bool
	Error                            string
	Cgroup                           string
	Resources                        *specs.LinuxResources
	// SharedPID says that processes may outlive the first one.
	SharedPID bool
	Child     plan.Child
	// Runtime is the path of the runtime that has put it together, when another.
	Runtime string `json:",omitempty"`
	// Restored says that its processes came out of a checkpoint.
	Restored bool `json:",omitempty"`
	// Unjudged says that nobody has looked yet at what came out: none of it may run.
	Unjudged bool `json:",omitempty"`
	// Hooks are those that run after the start and after the end.
	Hooks *specs.Hooks `json:",omitempty"`
}

// container is one container. The mutex guards rec, base and ready; ended is closed when it has
// ended. Lock order: Runtime.mu is never taken with a container's held.
type container struct {
	r        *Runtime
	group    *cgroup.Group
	filePlan string
	ended    chan struct{}

	mu  sync.Mutex
	rec record
	// judged closes when it is known whether the start that is under way has failed;
	// nil while there is none.
	judged chan struct{}
	base   *execBase // read when the first exec wants it
	ready  *prepared // what execs have left for the next

	// dumping says that a checkpoint is being written.
	dumping atomic.Bool
}

func (c *container) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{
		ID: c.rec.ID, SandboxID: c.rec.SandboxID, State: c.rec.State,
		CreatedAt: c.rec.CreatedAt, StartedAt: c.rec.StartedAt, FinishedAt: c.rec.FinishedAt,
		ExitCode: c.rec.ExitCode, Unknown: c.rec.Unknown, OOMKilled: c.rec.OOMKilled, Error: c.rec.Error,
		LogPath: c.rec.Child.Log, Cgroup: c.rec.Cgroup,
	}
	if c.rec.State != Exited {
		s.PID = c.rec.PID
	}
	return s
}

// save writes the record; the caller holds the mutex. Only the end must survive a
// power cut: a machine that has lost its power has no living containers.
func (c *container) save() error {
	path := c.r.file(c.rec.ID, stateFile)
	if c.rec.State == Exited {
		return atomicfile.WriteJSON(path, &c.rec)
	}
	b, err := json.Marshal(&c.rec)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(path, b, 0o600)
}

// finish notes an exit, once, and tells it. It survives this process: the
// keeper has recorded the exit, the cgroup remembers the OOM kill. The exit of what
// could not be executed may be quicker than the answer that says so: it is not told
// before.
func (c *container) finish(e plan.Exit) {
	c.mu.Lock()
	judged := c.judged
	c.mu.Unlock()
	if judged == nil {
		c.close(e)
		return
	}
	go func() {
		<-judged
		c.close(e)
	}()
}

func (c *container) close(e plan.Exit) {
	if c.rec.SharedPID { // what has outlived the first process goes before that is told
		if err := c.group.Signal(syscall.SIGKILL); err != nil {
			c.r.log.Warn("processes of an ended container not killed", "id", e.ID, "err", err)
		}
	}
	oom := c.group.OOMKills() > 0
	c.mu.Lock()
	if c.rec.State == Exited {
		c.mu.Unlock()
		return
	}
	c.rec.State, c.rec.FinishedAt = Exited, time.Unix(0, e.At).UTC()
	c.rec.StartedAt = earlier(c.rec.StartedAt, c.rec.FinishedAt) // it ends while its start is noted
	c.rec.ExitCode, c.rec.Unknown, c.rec.OOMKilled = e.Code, e.Unknown, oom
	if c.rec.Error != "" {
		c.rec.ExitCode = startFailed
	}
	if err := c.save(); err != nil {
		c.r.log.Error("container record not written", "id", e.ID, "err", err)
	}
	c.unprepare()
	exit := Exit{ID: e.ID, ExitCode: c.rec.ExitCode, OOMKilled: oom, At: c.rec.FinishedAt}
	close(c.ended)
	c.mu.Unlock()
	c.r.exits.publish(exit)
}

// alive reports whether the recorded process is still that process.
func (rec *record) alive() bool {
	return rec.PID > 0 && rec.Boot == bootID() && startTicks(rec.PID) == rec.Ticks
}

// bootID names this boot of the machine.
var bootID = sync.OnceValue(func() string {
	id, err := readSmall("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(id)
})

// startTicks is field 22 of /proc/PID/stat, 0 for no process or a zombie.
func startTicks(pid int) uint64 {
	s, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0
	}
	n, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// maxSmall is more than there is in a file that readSmall is for.
const maxSmall = 1024

// readSmall reads a file of the kernel's that fits into one read. It is asked for so
// often that what package os does around a read counts: a probe asks for one.
func readSmall(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var b [maxSmall]byte
	n, err := unix.Read(fd, b[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(fd, b[:])
	}
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return string(b[:n]), nil
}

// readWhole reads all of a file that has at most so many bytes. What is judged is judged
// whole: more is an error, never cut off.
func readWhole(f *os.File, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%q has more than %d bytes", f.Name(), most)
	}
	return b, err
}

// readExit reads the keeper's record of an exit.
func (r *Runtime) readExit(id string) (plan.Exit, error) {
	var e plan.Exit
	err := atomicfile.ReadJSON(r.file(id, exitFile), &e)
	if err == nil && e.ID != id {
		err = errors.New("exit record of another container")
	}
	return e, err
}
