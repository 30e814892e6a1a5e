package container

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// adoptWait bounds the hand-over of one container to a new keeper.
const adoptWait = 10 * time.Second

// exited handles an exit that the keeper has told.
func (r *Runtime) exited(e plan.Exit) {
	if c, err := r.find(e.ID); err == nil {
		c.finish(e)
	}
}

// reconcile compares the records with what the keeper knows. Everything that
// has happened while nobody watched is found out here.
func (r *Runtime) reconcile(known map[string]plan.Answer) {
	r.mu.Lock()
	all := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c)
	}
	pauses := map[string]*Sandbox{}
	for _, sb := range r.sandboxes {
		pauses[sb.pauseID()] = sb
	}
	r.mu.Unlock()
	for _, c := range all {
		a, ok := known[c.rec.ID]
		delete(known, c.rec.ID)
		if err := r.settle(c, a, ok); err != nil {
			r.log.Error("container not recovered", "id", c.rec.ID, "err", err)
		}
	}
	for id, a := range known {
		if sb := pauses[id]; sb != nil {
			if err := r.settlePause(sb, a); err != nil {
				r.log.Error("sandbox not recovered", "id", sb.Config.ID, "err", err)
			}
		} else if !r.isCreating(strings.TrimSuffix(id, pauseSuffix)) {
			r.log.Warn("a process that no record names is ended", "id", id, "pid", a.PID)
			r.endUnknown(id, a)
		}
	}
}

// settlePause notes the pid 1 of a sandbox that was being made when its maker
// died: with it, the sandbox can be taken apart.
func (r *Runtime) settlePause(s *Sandbox, a plan.Answer) error {
	if s.PausePID != 0 || a.PID == 0 {
		return nil
	}
	s.PausePID, s.PauseTicks = a.PID, a.Started
	return r.saveSandbox(s)
}

// endUnknown kills what only the keeper knows, and has it forget.
func (r *Runtime) endUnknown(id string, a plan.Answer) {
	if a.Exit == nil && a.PID > 0 && startTicks(a.PID) == a.Started {
		_ = unix.Kill(a.PID, unix.SIGKILL) // fails when it has ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), adoptWait)
	defer cancel()
	req := plan.Request{Op: plan.Forget, ID: id}
	conn, err := r.keeper.requestNow(req)
	if err == nil {
		_, err = r.keeper.answer(ctx, conn, req)
	}
	if err != nil {
		r.log.Warn("keeper does not forget", "id", id, "err", err)
	}
}

// unborn removes a container whose maker died before the keeper had made it, or that has
// ended with its keeper before it was started.
func (r *Runtime) unborn(c *container) error {
	r.log.Info("removing a container that was never made", "id", c.rec.ID)
	killed := c.group.Signal(syscall.SIGKILL)
	ctx, cancel := context.WithTimeout(context.Background(), removeWait)
	defer cancel()
	c.foreignDelete(ctx)
	if err := c.group.Remove(ctx); err != nil {
		return errors.Join(err, killed)
	}
	r.mu.Lock()
	delete(r.containers, c.rec.ID)
	r.mu.Unlock()
	return r.removeDirs(c.rec.ID)
}

func (r *Runtime) isCreating(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.creating[id]
}

// settle brings one container up to date.
func (r *Runtime) settle(c *container, a plan.Answer, known bool) error {
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	if rec.State == Exited {
		return nil
	}
	if known {
		if a.Exit != nil {
			c.finish(*a.Exit)
			return nil
		}
		return c.observe(a)
	}
	if e, err := r.readExit(rec.ID); err == nil {
		c.finish(e)
		return nil
	}
	if rec.State == Created && rec.PID == 0 {
		return r.unborn(c)
	}
	if !rec.alive() || rec.State == Created {
		// A created container ends with its keeper: nobody could start it.
		c.finish(plan.Exit{ID: rec.ID, Code: 255, Unknown: true, At: time.Now().UnixNano()})
		return nil
	}
	child := rec.Child
	child.PID, child.Started = rec.PID, rec.Ticks
	ctx, cancel := context.WithTimeout(context.Background(), adoptWait)
	defer cancel()
	req := plan.Request{Op: plan.Adopt, ID: rec.ID, Child: &child}
	conn, err := r.keeper.requestNow(req)
	if err == nil {
		_, err = r.keeper.answer(ctx, conn, req)
	}
	if err != nil && !rec.alive() {
		c.finish(plan.Exit{ID: rec.ID, Code: 255, Unknown: true, At: time.Now().UnixNano()})
		return nil
	}
	return err
}

// observe takes over what the keeper knows about a living container: this process
// may have died between asking and writing down.
func (c *container) observe(a plan.Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := Running
	if a.Created {
		state = Created
	}
	if c.rec.State == state && c.rec.PID == a.PID {
		return nil
	}
	c.rec.State, c.rec.PID, c.rec.Ticks, c.rec.Boot = state, a.PID, a.Started, bootID()
	if state == Running && c.rec.StartedAt.IsZero() {
		c.rec.StartedAt = now()
	}
	return c.save()
}

// allDevices are resources without a device restriction, for our own groups.
func allDevices() *specs.LinuxResources {
	return &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
}
