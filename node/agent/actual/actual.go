// Package actual is what the engine really holds for a pod: its sandboxes and
// containers, newest first. It is the only reader of the CRI's status messages;
// the planner and the status computation see nothing but these values.
package actual

import (
	"time"
)

// State is where a container is in its life.
type State int

// The states of a container, as the CRI has them.
const (
	Created State = iota
	Running
	Exited
	Unknown
	// States is how many there are.
	States = iota
)

// String is the state as messages print it.
func (s State) String() string {
	return [...]string{"created", "running", "exited", "unknown"}[min(max(int(s), 0), 3)]
}

// Pod is everything the engine holds for one pod UID.
type Pod struct {
	UID, Name, Namespace string
	// Sandboxes and Containers are ordered newest first.
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox is one pod sandbox, running or not.
type Sandbox struct {
	ID      string
	Attempt uint32
	Created time.Time
	Ready   bool
	IPs     []string
	HostNet bool
	Labels  map[string]string
}

// Container is one container, in whatever state.
type Container struct {
	ID, SandboxID, Name string
	// Attempt counts restarts: 0 for the first container of that name.
	Attempt                    int32
	State                      State
	Created, Started, Finished time.Time
	ExitCode                   int32
	Reason, Message            string
	Image, ImageID             string
	Hash                       string
	LogPath                    string
	// TerminationFile is the host's file behind terminationMessagePath, "" if
	// none; FallbackToLogs is the policy FallbackToLogsOnError.
	TerminationFile string
	FallbackToLogs  bool
	User            *User
}

// User is the identity of a container's first process.
type User struct {
	UID, GID     int64
	Supplemental []int64
}

// Ready is the newest sandbox if it is ready, else nil.
func (p *Pod) Ready() *Sandbox {
	if p == nil || len(p.Sandboxes) == 0 || !p.Sandboxes[0].Ready {
		return nil
	}
	return &p.Sandboxes[0]
}

// Latest is the newest container of that name, nil if there is none.
func (p *Pod) Latest(name string) *Container {
	return p.latest(name, "")
}

// LatestIn is the newest container of that name in one sandbox.
func (p *Pod) LatestIn(name, sandbox string) *Container {
	return p.latest(name, sandbox)
}

func (p *Pod) latest(name, sandbox string) *Container {
	if p == nil {
		return nil
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		if c.Name == name && (sandbox == "" || c.SandboxID == sandbox) {
			return c
		}
	}
	return nil
}

// EndedBefore is the newest container of c's name that was made before c and has
// ended, nil if there is none. c is one of p's.
func (p *Pod) EndedBefore(c *Container) *Container {
	found := false
	for i := range p.Containers {
		switch o := &p.Containers[i]; {
		case o.ID == c.ID:
			found = true
		case found && o.Name == c.Name && o.State == Exited:
			return o
		}
	}
	return nil
}

// ByID is the container with that id, nil if there is none.
func (p *Pod) ByID(id string) *Container {
	if p == nil {
		return nil
	}
	for i := range p.Containers {
		if p.Containers[i].ID == id {
			return &p.Containers[i]
		}
	}
	return nil
}

// Live reports whether a container of the pod may still have a process.
func (p *Pod) Live() bool {
	if p == nil {
		return false
	}
	for i := range p.Containers {
		if s := p.Containers[i].State; s == Running || s == Unknown {
			return true
		}
	}
	return false
}

// NextAttempt is the restart count that a new container of that name gets. One
// that was made and never started doesn't count: it is removed first.
func (p *Pod) NextAttempt(name string) int32 {
	next := int32(0)
	if p == nil {
		return 0
	}
	for i := range p.Containers {
		if c := &p.Containers[i]; c.Name == name && c.State != Created && c.Attempt >= next {
			next = c.Attempt + 1
		}
	}
	return next
}
