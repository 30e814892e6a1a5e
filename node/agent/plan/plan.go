// Package plan decides what to do next for one pod: given what the API wants,
// what the engine has and what is under way, Next lists the steps that may begin
// now. It is pure: no I/O, no clock; the same input gives the same steps. The
// pod's owner takes the steps and asks again whenever anything has changed.
package plan

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Kind is what a Step does.
type Kind string

// The kinds of steps.
const (
	MountVolumes   Kind = "mount volumes"
	RunSandbox     Kind = "run sandbox"
	StopSandbox    Kind = "stop sandbox"
	PullImage      Kind = "pull image"
	StartContainer Kind = "start"
	KillContainer  Kind = "kill"
	// WarnContainer tells a sidecar that its end is near: its preStop hook runs.
	WarnContainer   Kind = "warn"
	RemoveContainer Kind = "remove"
	RemoveSandbox   Kind = "remove sandbox"
	ResizeContainer Kind = "resize"
	ResizePod       Kind = "resize pod"
)

// Step is one thing to do. Steps with different Keys may run side by side.
type Step struct {
	Kind      Kind
	Container string
	// ID is the container or sandbox to kill, stop or remove.
	ID string
	// Attempt is the number of the sandbox or container to make.
	Attempt int32
	// Message is why a container is killed, for the event; Grace is how long it
	// has to stop.
	Message string
	Grace   time.Duration
	// Again: the container is killed so that it is started anew, whatever it ends
	// with and whatever its policy says about that.
	Again bool
}

// Key names what the step works on: one step of a key at a time.
func (s Step) Key() string {
	switch s.Kind {
	case MountVolumes, RunSandbox:
		return string(s.Kind)
	case PullImage, StartContainer:
		return string(s.Kind) + "/" + s.Container
	}
	return string(s.Kind) + "/" + s.ID
}

// Waiting is why a container isn't running, as its status says it.
type Waiting struct{ Reason, Message string }

// Failure keeps a container from being started for a while.
type Failure struct {
	Waiting
	Until time.Time
}

// Verdict is what a running container's probes say.
type Verdict struct {
	// Started is true once the startup probe has succeeded, or at once when
	// there is none.
	Started bool
	// Failed names the probe ("liveness", "startup") that wants the container
	// killed, "" for none; Grace then replaces the pod's when not nil.
	Failed string
	Grace  *int64
}

// Stop asks that the pod be brought down, by Deadline at the latest.
type Stop struct {
	Deadline time.Time
	// Message is the Killing event's text; empty for the usual one.
	Message string
}

// Input is all that a decision depends on.
type Input struct {
	Pod    *corev1.Pod
	Actual *actual.Pod
	Now    time.Time
	// Stop is nil while the pod should run.
	Stop *Stop
	// Mounted says that the volumes are ready.
	Mounted bool
	// Busy holds the Keys of the steps under way.
	Busy map[string]bool
	// Images holds the containers whose image is at hand for the next start.
	Images map[string]bool
	// Failures and Crashes are the past of containers, by name.
	Failures map[string]Failure
	Crashes  map[string]Crash
	// Killed are the containers that were killed while they ran.
	Killed Killed
	// Attempts are the least numbers that the next containers get, by name, for
	// those that the engine has forgotten.
	Attempts map[string]int32
	// Verdicts are by container id.
	Verdicts map[string]Verdict
	// Given are the resources that running containers and the sandbox have, by id;
	// what the spec wants otherwise is resized.
	Given map[string]Given
	// HoldResize keeps the pod as a whole from being resized before that time.
	HoldResize time.Time
	// HoldSandbox keeps a sandbox from being made before that time.
	HoldSandbox time.Time
}

// Decision is what Next came to.
type Decision struct {
	Steps []Step
	// Waiting tells of containers that are held back, by name.
	Waiting map[string]Waiting
	// Finished: no container runs or will run again; the pod should stop.
	Finished bool
	// Stopped (only when asked to stop): nothing of the pod runs any more.
	Stopped bool
	// Again is when time alone changes the decision; zero for never.
	Again time.Time
}

// planner builds a Decision.
type planner struct {
	Input
	box *actual.Sandbox
	out Decision
	// due are the containers to start, in order.
	due []*corev1.Container
	// hooked: a regular container runs whose postStart hook has not ended; others wait.
	hooked bool
	// held: they must wait until the pod as a whole has been resized.
	held bool
}

// Next decides.
func Next(in Input) Decision {
	p := &planner{Input: in, box: in.Actual.Ready(), out: Decision{Waiting: map[string]Waiting{}}}
	if in.Stop != nil {
		p.stop()
		return p.out
	}
	p.run()
	return p.out
}

func (p *planner) run() {
	if !p.Mounted {
		p.add(Step{Kind: MountVolumes})
	}
	if p.box == nil {
		p.withoutSandbox()
		return
	}
	if p.reset() {
		return
	}
	p.ephemeral()
	ready := p.inits()
	if p.out.Finished {
		return
	}
	if ready {
		p.regular()
	}
	p.held = !p.out.Finished && p.resizePod()
	p.start()
	p.tidy()
}

// add proposes a step unless one of its key is under way.
func (p *planner) add(s Step) {
	if !p.Busy[s.Key()] {
		p.out.Steps = append(p.out.Steps, s)
	}
}

// at asks to be called again at t.
func (p *planner) at(t time.Time) {
	if p.out.Again.IsZero() || t.Before(p.out.Again) {
		p.out.Again = t
	}
}

// withoutSandbox makes the first sandbox, or a new one after the old has died;
// then everything starts over, init containers included.
func (p *planner) withoutSandbox() {
	if p.leftovers() {
		return
	}
	if p.overWithoutSandbox() {
		p.out.Finished = true
		return
	}
	attempt := int32(0)
	if len(p.Actual.Sandboxes) > 0 {
		attempt = int32(p.Actual.Sandboxes[0].Attempt) + 1
	}
	if p.Now.Before(p.HoldSandbox) {
		p.at(p.HoldSandbox)
	} else {
		p.add(Step{Kind: RunSandbox, Attempt: attempt})
	}
	p.due = p.first()
	p.start()
}

// overWithoutSandbox: a pod that ran and may not run again gets no new sandbox.
func (p *planner) overWithoutSandbox() bool {
	if len(p.Actual.Sandboxes) == 0 || len(p.Actual.Containers) == 0 {
		return false
	}
	if p.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return true
	}
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		last := p.Actual.Latest(c.Name)
		if !spec.Sidecar(c) && last != nil && last.State == actual.Exited && last.ExitCode != 0 && !p.restarts(c, last) {
			return true
		}
	}
	for i := range p.Pod.Spec.Containers {
		if p.begins(&p.Pod.Spec.Containers[i]) {
			return false
		}
	}
	return true
}

// leftovers brings down what the dead sandbox left running.
func (p *planner) leftovers() bool {
	for i := range p.Actual.Containers {
		c := &p.Actual.Containers[i]
		if c.State == actual.Running || c.State == actual.Unknown {
			p.kill(c, fault{why: "Pod sandbox changed, it will be killed and re-created.", again: p.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever}, p.grace(nil))
		}
	}
	return p.Actual.Live()
}

// first are the containers that a fresh sandbox starts with: the first init
// container, or all regular ones that are still to run.
func (p *planner) first() []*corev1.Container {
	if len(p.Pod.Spec.InitContainers) > 0 {
		return []*corev1.Container{&p.Pod.Spec.InitContainers[0]}
	}
	var list []*corev1.Container
	for i := range p.Pod.Spec.Containers {
		if c := &p.Pod.Spec.Containers[i]; p.begins(c) {
			list = append(list, c)
		}
	}
	return list
}

// begins: a regular container runs in a new sandbox, unless it has ended for good.
func (p *planner) begins(c *corev1.Container) bool {
	last := p.Actual.Latest(c.Name)
	return last == nil || last.State != actual.Exited || p.anew(c, last)
}

// anew: a container that ended in an older sandbox starts in the new one. As upstream
// has it, in a pod without init containers only those have ended for good that run once
// and succeeded: one that never restarts does its work again. In a pod with init
// containers the same goes by the rules of any restart.
func (p *planner) anew(c *corev1.Container, ended *actual.Container) bool {
	if len(p.Pod.Spec.InitContainers) > 0 || p.Killed[ended.ID] {
		return p.restarts(c, ended)
	}
	return ended.ExitCode != 0 || policy(p.Pod, c) != corev1.RestartPolicyOnFailure
}

func (p *planner) kill(c *actual.Container, f fault, grace time.Duration) {
	p.add(Step{Kind: KillContainer, Container: c.Name, ID: c.ID, Message: f.why, Grace: grace, Again: f.again})
}

// tidy removes what only the past needed: all but the newest two containers of
// a name, and dead sandboxes that hold none.
func (p *planner) tidy() {
	seen := map[string]int{}
	used := map[string]bool{}
	for i := range p.Actual.Containers {
		c := &p.Actual.Containers[i]
		seen[c.Name]++
		if seen[c.Name] > keepDead+1 && c.State == actual.Exited {
			p.add(Step{Kind: RemoveContainer, Container: c.Name, ID: c.ID})
			continue
		}
		used[c.SandboxID] = true
	}
	for i := range p.Actual.Sandboxes {
		if b := &p.Actual.Sandboxes[i]; i > 0 && !b.Ready && !used[b.ID] {
			p.add(Step{Kind: RemoveSandbox, ID: b.ID})
		}
	}
}

// keepDead is how many dead containers of a name are kept beside the newest, so
// that "logs --previous" works.
const keepDead = 1
