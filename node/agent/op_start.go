package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/volume"
)

// Waiting reasons of containers that couldn't be started, upstream's words.
const (
	errConfig = "CreateContainerConfigError"
	errCreate = "CreateContainerError"
	errRun    = "RunContainerError"
	errHook   = "PostStartHookError"
)

// startRetry is the delay after a container couldn't be started.
const startRetry = 10 * time.Second

// starter starts one container; its fields are what the owner knew when the
// operation began.
type starter struct {
	m       *machine
	pod     *corev1.Pod
	c       *corev1.Container
	attempt int32
	image   spec.Image
	set     volume.Set
	// throughout: the engine can do read-only mounts all the way down; nil when the
	// container doesn't ask.
	throughout *bool
	// images are what the container mounts of images, by volume.
	images map[string]*rt.ImageSpec
	box    string
	now    *actual.Pod
}

// prepareStart takes what an operation needs from the owner's fields.
func (m *machine) prepareStart() func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	images, set, now := m.images, m.set, m.now
	box := ""
	if b := now.Ready(); b != nil {
		box = b.ID
	}
	ready := make(map[imageUse]spec.Image, len(images))
	for use, img := range images {
		ready[use] = img
	}
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
		st := &starter{
			m: m, pod: pod, c: spec.Container(pod, s.Container), attempt: s.Attempt,
			image: ready[imageUse{container: s.Container}], set: set, box: box, now: now,
		}
		st.images = imageMounts(pod, st.c, ready)
		return st.start(ctx)
	}
}

// start makes the container, starts it and runs its postStart hook.
func (st *starter) start(ctx context.Context) func(*machine) {
	st.clear(ctx)
	begin := time.Now()
	box := spec.Sandbox(st.pod, 0, st.m.a.node)
	cfg, err := st.config(ctx)
	if err == nil {
		err = st.m.a.inUsers(st.pod, cfg, box)
	}
	if err != nil {
		return st.fail(ctx, errConfig, err)
	}
	// A pod that is deleted now must not look as if its container had failed to
	// start: what has begun comes to its end, and is then stopped as any other.
	callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	made, err := st.m.a.cfg.Engine.CreateContainer(cri.WithLeave(callCtx, st.m.a.images.leave(st.pod)), &rt.CreateContainerRequest{
		PodSandboxId: st.box, Config: cfg, SandboxConfig: box,
	})
	st.countImages(err)
	if err != nil {
		return st.fail(ctx, errCreate, err)
	}
	st.m.a.mark(st.m.uid, "create container", st.c.Name, begin)
	st.event(corev1.EventTypeNormal, "Created", "Container created")
	if ctx.Err() != nil {
		return nil
	}
	begin = time.Now()
	if _, err := st.m.a.cfg.Engine.StartContainer(callCtx, &rt.StartContainerRequest{ContainerId: made.GetContainerId()}); err != nil {
		return st.fail(ctx, errRun, err)
	}
	st.m.a.mark(st.m.uid, "start container", st.c.Name, begin)
	st.event(corev1.EventTypeNormal, "Started", "Container started")
	st.m.a.link(st.pod, st.c.Name, made.GetContainerId(), st.attempt)
	st.m.a.tally.ContainerStarted(tally.KindOf(st.pod, st.c.Name), "")
	st.m.a.places.settled(string(st.pod.UID), st.c.Name, cfg.GetLinux().GetResources())
	return st.started(made.GetContainerId(), st.postStart(ctx, made.GetContainerId()))
}

// countImages counts what came of the images that the container mounts.
func (st *starter) countImages(err error) {
	if len(st.images) == 0 {
		return
	}
	places := 0
	for _, m := range st.c.VolumeMounts {
		if st.images[m.Name] != nil {
			places++
		}
	}
	st.m.a.tally.ImagesMounted(len(st.images), places, err != nil)
}

// started notes which resources the container was given, whatever else came of
// its start.
func (st *starter) started(id string, then func(*machine)) func(*machine) {
	given := plan.Asked(st.pod, st.c) // read-only, as all of the pod
	throughout := st.throughout
	return func(m *machine) {
		m.given[id] = given
		if throughout != nil {
			m.throughout = throughout
		}
		if then != nil {
			then(m)
		}
	}
}

func (st *starter) event(eventtype, reason, message string) {
	st.m.a.containerEvent(st.pod, st.c.Name, eventtype, reason, message)
}

// clear removes containers of this name that were made and never started.
func (st *starter) clear(ctx context.Context) {
	for i := range st.now.Containers {
		c := &st.now.Containers[i]
		if c.Name != st.c.Name || c.State != actual.Created {
			continue
		}
		if _, err := st.m.a.cfg.Engine.RemoveContainer(ctx, &rt.RemoveContainerRequest{ContainerId: c.ID}); err != nil {
			st.m.log.Warn("can't remove a container that never started", "container", c.ID, "err", err)
		}
	}
}

// postStart runs the hook; when it fails the container is brought down again as any
// other, with its preStop hook.
func (st *starter) postStart(ctx context.Context, id string) func(*machine) {
	if st.c.Lifecycle == nil || st.c.Lifecycle.PostStart == nil {
		return st.done()
	}
	// The hook may ask to see the container running.
	st.m.wake()
	err := st.m.a.doer.Hook(ctx, st.pod, st.c.Name, id, st.c.Lifecycle.PostStart)
	if err == nil {
		return st.done()
	}
	if ctx.Err() != nil {
		return nil
	}
	st.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	stop := plan.Step{Kind: plan.StartContainer, Container: st.c.Name, ID: id, Message: "FailedPostStartHook",
		Grace: time.Duration(spec.Grace(st.pod)) * time.Second}
	if err := st.m.bringDown(ctx, st.pod, stop, false); err != nil {
		st.m.log.Warn("can't stop a container whose postStart hook failed", "container", id, "err", err)
	}
	return st.hold(errHook, err.Error())
}

// fail tells of a start that failed and holds the container back.
func (st *starter) fail(ctx context.Context, reason string, err error) func(*machine) {
	if ctx.Err() != nil {
		return nil
	}
	st.event(corev1.EventTypeWarning, "Failed", "Error: "+cri.Message(err))
	st.m.a.tally.ContainerStarted(tally.KindOf(st.pod, st.c.Name), reason)
	name, hold := st.c.Name, st.hold(reason, cri.Message(err))
	return func(m *machine) {
		if _, again := m.failures[name]; !again && spec.OwnUsers(m.pod) {
			m.a.tally.UsersFailed() // whatever the reason, as upstream
		}
		hold(m)
	}
}

func (st *starter) hold(reason, message string) func(*machine) {
	name, then := st.c.Name, st.now
	return func(m *machine) {
		m.failures[name] = plan.Failure{Waiting: plan.Waiting{Reason: reason, Message: message}, Until: time.Now().Add(startRetry)}
		m.forgetImages(name)
		m.restarted(name, then)
	}
}

// done notes the success.
func (st *starter) done() func(*machine) {
	name, then := st.c.Name, st.now
	return func(m *machine) {
		m.forgetImages(name)
		delete(m.failures, name)
		delete(m.shown, name)
		m.restarted(name, then)
	}
}

// restarted lengthens the back-off of a container that had to be started again; then
// is what there was before.
func (m *machine) restarted(name string, then *actual.Pod) {
	crash := m.crashes[name]
	crash.Least, crash.Most = m.a.cfg.backOff()
	if ended := crash.Since(then, name, m.killed); !ended.IsZero() {
		m.crashes[name] = crash.Restarted(time.Now(), ended)
	}
}
