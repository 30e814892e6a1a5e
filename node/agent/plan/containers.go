package plan

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// inits walks the init containers in order. It returns true when the regular
// containers may run: every plain init container has succeeded and every
// sidecar has started.
func (p *planner) inits() bool {
	begun := p.begun()
	ready := true
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		// What comes after a container that was begun shows that it was done.
		passed := i < begun
		if spec.Sidecar(c) {
			ready = p.sidecar(c) || passed
		} else {
			ready = passed || p.init(c)
		}
		if p.out.Finished || !ready {
			return false
		}
	}
	return ready
}

// begun is the index of the last init container that exists in this sandbox,
// or the number of init containers when a regular one does.
func (p *planner) begun() int {
	for i := range p.Pod.Spec.Containers {
		if p.Actual.LatestIn(p.Pod.Spec.Containers[i].Name, p.box.ID) != nil {
			return len(p.Pod.Spec.InitContainers)
		}
	}
	last := 0
	for i := range p.Pod.Spec.InitContainers {
		if p.Actual.LatestIn(p.Pod.Spec.InitContainers[i].Name, p.box.ID) != nil {
			last = i
		}
	}
	return last
}

// init is done when its container has succeeded.
func (p *planner) init(c *corev1.Container) bool {
	now := p.Actual.LatestIn(c.Name, p.box.ID)
	if now == nil || now.State == actual.Created {
		p.due = append(p.due, c)
		return false
	}
	if now.State != actual.Exited {
		p.keep(c, now)
		return false
	}
	if now.ExitCode == 0 {
		return true
	}
	if !p.restarts(c, now) {
		p.out.Finished = true
		return false
	}
	p.due = append(p.due, c)
	return false
}

// sidecar is done when it runs and has started.
func (p *planner) sidecar(c *corev1.Container) bool {
	now := p.Actual.LatestIn(c.Name, p.box.ID)
	if now == nil || now.State == actual.Created || now.State == actual.Exited {
		p.due = append(p.due, c)
		return false
	}
	p.keep(c, now)
	return p.Verdicts[now.ID].Started && !p.Busy[Step{Kind: StartContainer, Container: c.Name}.Key()]
}

// regular looks at the pod's own containers; when none runs or will, the pod
// has finished.
func (p *planner) regular() {
	alive := 0
	for i := range p.Pod.Spec.Containers {
		c := &p.Pod.Spec.Containers[i]
		now := p.Actual.LatestIn(c.Name, p.box.ID)
		switch {
		case now == nil:
			if !p.begins(c) {
				continue
			}
			p.due = append(p.due, c)
		case now.State == actual.Created:
			p.due = append(p.due, c)
		case now.State == actual.Exited:
			if !p.restarts(c, now) {
				continue
			}
			p.due = append(p.due, c)
		default:
			p.keep(c, now)
			p.hooked = p.hooked || p.Busy[Step{Kind: StartContainer, Container: c.Name}.Key()]
		}
		alive++
	}
	if alive == 0 {
		p.out.Finished = true
		p.due, p.out.Steps = nil, nil
	}
}

// ephemeral containers start once, and are never started again.
func (p *planner) ephemeral() {
	for i := range p.Pod.Spec.EphemeralContainers {
		c := (*corev1.Container)(&p.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if p.Actual.Latest(c.Name) == nil {
			p.due = append(p.due, c)
		}
	}
}

// start pulls images for the due containers side by side and starts the
// containers one after the other, in order: a postStart hook of the first holds
// back the second, also when the first is seen to run, but a container that can't start
// now doesn't.
func (p *planner) start() {
	blocked := false
	for _, c := range p.due {
		if !p.startOne(c, blocked) {
			blocked = true
		}
	}
}

// startOne returns false when the containers after c must wait for it.
func (p *planner) startOne(c *corev1.Container, blocked bool) bool {
	start := Step{Kind: StartContainer, Container: c.Name, Attempt: max(p.Actual.NextAttempt(c.Name), p.Attempts[c.Name])}
	pull := Step{Kind: PullImage, Container: c.Name}
	if p.Busy[start.Key()] || p.Busy[pull.Key()] {
		return false
	}
	if f, ok := p.Failures[c.Name]; ok && p.Now.Before(f.Until) {
		p.out.Waiting[c.Name] = f.Waiting
		p.at(f.Until)
		return true
	}
	if p.crashed(c) {
		return true
	}
	if !p.Images[c.Name] {
		p.add(pull)
		return false
	}
	if p.box == nil || !p.Mounted || blocked || p.held || (p.hooked && p.isRegular(c.Name)) {
		return false
	}
	p.add(start)
	return false
}

// crashed holds a container back that has ended too recently.
func (p *planner) crashed(c *corev1.Container) bool {
	crash := p.Crashes[c.Name]
	since := crash.Since(p.Actual, c.Name, p.Killed)
	until := crash.Until(since)
	if since.IsZero() || !p.Now.Before(until) {
		return false
	}
	p.out.Waiting[c.Name] = Waiting{
		Reason:  "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", crash.Delay, c.Name, spec.FullName(p.Pod)),
	}
	p.at(until)
	return true
}

// stop brings the pod down: regular containers at once, then the sidecars from
// the last to the first, then the sandboxes. The sidecars' preStop hooks don't wait
// for their turn: they run at once, side by side with those of the others.
func (p *planner) stop() {
	grace := max(p.Stop.Deadline.Sub(p.Now), minGrace)
	p.warnSidecars(grace)
	late := !p.Now.Before(p.Stop.Deadline)
	left := p.stopMain(grace)
	if left && !late {
		p.atDeadline()
		return
	}
	if p.stopSidecars(grace, late) || left {
		return
	}
	if len(p.Busy) > 0 {
		return
	}
	for i := range p.Actual.Sandboxes {
		if p.Actual.Sandboxes[i].Ready {
			p.add(Step{Kind: StopSandbox, ID: p.Actual.Sandboxes[i].ID})
			return
		}
	}
	p.out.Stopped = true
}

func (p *planner) stopMain(grace time.Duration) bool {
	left := false
	for i := range p.Actual.Containers {
		c := &p.Actual.Containers[i]
		if !running(c) || p.isSidecar(c.Name) {
			continue
		}
		p.kill(c, fault{why: p.Stop.Message}, grace)
		left = true
	}
	return left
}

func (p *planner) warnSidecars(grace time.Duration) {
	for i := range p.Actual.Containers {
		c := &p.Actual.Containers[i]
		if running(c) && p.isSidecar(c.Name) && !p.Killed.Has(c.ID) {
			p.add(Step{Kind: WarnContainer, Container: c.Name, ID: c.ID, Message: p.Stop.Message, Grace: grace})
		}
	}
}

// atDeadline asks to be called when sidecars need not wait for their turn any more.
func (p *planner) atDeadline() {
	for i := range p.Actual.Containers {
		if c := &p.Actual.Containers[i]; running(c) && p.isSidecar(c.Name) {
			p.at(p.Stop.Deadline)
		}
	}
}

// stopSidecars stops the last sidecar that runs, once it has been warned; when it is late
// all of them, since nobody waits for its turn any more.
func (p *planner) stopSidecars(grace time.Duration, late bool) bool {
	inits, left := p.Pod.Spec.InitContainers, false
	for i := range slices.Backward(inits) {
		for j := range p.Actual.Containers {
			c := &p.Actual.Containers[j]
			if c.Name != inits[i].Name || !running(c) {
				continue
			}
			if p.Killed.Has(c.ID) && !p.Busy[Step{Kind: WarnContainer, ID: c.ID}.Key()] {
				p.kill(c, fault{why: p.Stop.Message}, grace)
			}
			if !late {
				p.atDeadline()
				return true
			}
			left = true
		}
	}
	return left
}

func running(c *actual.Container) bool { return c.State == actual.Running || c.State == actual.Unknown }

func (p *planner) isInit(name string) bool {
	return slices.ContainsFunc(p.Pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

func (p *planner) isRegular(name string) bool {
	return slices.ContainsFunc(p.Pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
}

func (p *planner) isSidecar(name string) bool {
	return slices.ContainsFunc(p.Pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && spec.Sidecar(&c)
	})
}
