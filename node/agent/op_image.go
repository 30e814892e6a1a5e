package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// Waiting reasons of containers whose image isn't there, upstream's words.
const (
	errPull      = "ErrImagePull"
	errPullWait  = "ImagePullBackOff"
	errNever     = "ErrImageNeverPull"
	errInspect   = "ImageInspectError"
	errImageName = "InvalidImageName"
)

// pullRetry is the back-off after failed pulls: upstream's 10 s to 5 min.
var pullRetry = backoff.Policy{Min: 10 * time.Second, Max: 5 * time.Minute}

// pullSettle is how long a failed pull is shown as such before the status says
// that it is being waited for.
const pullSettle = 2 * time.Second

// pullHistory is how pulls for one container went.
type pullHistory struct {
	failures int
	until    time.Time
	message  string
}

// pullImage has the image at hand for the next start of a container, by its
// pull policy.
func (m *machine) pullImage(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	c := spec.Container(pod, s.Container)
	img, present, err := m.a.images.find(ctx, c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to inspect image %q: %s", c.Image, cri.Message(err))
		return m.imageFailed(pod, c, plan.Waiting{Reason: errInspect, Message: message}, "InspectFailed")
	}
	policy := pullPolicy(c)
	if policy == corev1.PullNever && !present {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		return m.imageFailed(pod, c, plan.Waiting{Reason: errNever, Message: message}, errNever)
	}
	if present && policy != corev1.PullAlways {
		m.a.containerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		return func(m *machine) { m.images[c.Name] = img }
	}
	return func(m *machine) { m.fetch(pod, c) }
}

func pullPolicy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	last := c.Image[strings.LastIndex(c.Image, "/")+1:]
	if strings.HasSuffix(last, ":latest") || !strings.ContainsAny(last, ":@") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageFailed holds a container back for want of its image.
func (m *machine) imageFailed(pod *corev1.Pod, c *corev1.Container, w plan.Waiting, reason string) func(*machine) {
	m.a.containerEvent(pod, c.Name, corev1.EventTypeWarning, reason, w.Message)
	m.a.containerEvent(pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: "+w.Reason)
	return func(m *machine) {
		m.failures[c.Name] = plan.Failure{Waiting: w, Until: time.Now().Add(pullRetry.Min)}
	}
}

// fetch pulls, unless the last failure is too fresh: then the container is shown
// to wait for the next attempt.
func (m *machine) fetch(pod *corev1.Pod, c *corev1.Container) {
	past := m.pulls[c.Name]
	if time.Now().Before(past.until) {
		text := fmt.Sprintf("Back-off pulling image %q", c.Image)
		m.containerEvent(c.Name, corev1.EventTypeNormal, "BackOff", text)
		m.containerEvent(c.Name, corev1.EventTypeWarning, "Failed", "Error: "+errPullWait)
		w := plan.Waiting{Reason: errPullWait, Message: text + ": " + past.message}
		m.failures[c.Name] = plan.Failure{Waiting: w, Until: past.until}
		return
	}
	step := plan.Step{Kind: plan.PullImage, Container: c.Name}
	if m.stage != serving {
		return
	}
	m.launch(m.life, step.Key(), step, func(ctx context.Context) func(*machine) { return m.download(ctx, pod, c) })
}

func (m *machine) download(ctx context.Context, pod *corev1.Pod, c *corev1.Container) func(*machine) {
	begin := time.Now()
	m.a.containerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	took, err := m.a.images.pull(ctx, pod, c.Image)
	if err != nil {
		return m.pullFailed(ctx, pod, c, err)
	}
	img, present, err := m.a.images.find(ctx, c.Image)
	if err == nil && !present {
		err = fmt.Errorf("image %q isn't there after it was pulled", c.Image)
	}
	if err != nil {
		return m.pullFailed(ctx, pod, c, err)
	}
	m.a.mark(m.uid, "pull image", c.Image, begin)
	m.a.containerEvent(pod, c.Name, corev1.EventTypeNormal, "Pulled", fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		c.Image, took.Truncate(time.Millisecond), time.Since(begin).Truncate(time.Millisecond), img.Size))
	return func(m *machine) {
		m.images[c.Name] = img
		delete(m.pulls, c.Name)
		delete(m.failures, c.Name)
		delete(m.shown, c.Name)
	}
}

func (m *machine) pullFailed(ctx context.Context, pod *corev1.Pod, c *corev1.Container, err error) func(*machine) {
	if ctx.Err() != nil {
		return nil
	}
	reason := errPull
	if cri.IsInvalid(err) {
		reason = errImageName
	}
	text := cri.Message(err)
	m.a.containerEvent(pod, c.Name, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, text))
	m.a.containerEvent(pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: "+reason)
	return func(m *machine) {
		past := m.pulls[c.Name]
		past.failures++
		past.until = time.Now().Add(pullRetry.After(past.failures))
		past.message = reason + ": " + text
		m.pulls[c.Name] = past
		m.failures[c.Name] = plan.Failure{Waiting: plan.Waiting{Reason: reason, Message: text}, Until: time.Now().Add(pullSettle)}
	}
}
