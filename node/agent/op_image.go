package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

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

// pullReasons are engines' words with which an error begins that is a reason of its
// own, and what it means.
var pullReasons = map[string]string{
	"RegistryUnavailable":       "the registry is unavailable",
	"SignatureValidationFailed": "the signature validation failed",
}

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

// imageUse is what an image is fetched for: a container, or a volume that the
// container mounts.
type imageUse struct{ container, volume string }

// wantedImage is one image that a container needs to start.
type wantedImage struct {
	imageUse
	name   string
	policy corev1.PullPolicy
}

// wantedImages are those of a container's volumes, and its own at last.
func wantedImages(pod *corev1.Pod, c *corev1.Container) []wantedImage {
	var list []wantedImage
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		list = append(list, wantedImage{imageUse{c.Name, v.Name}, v.Image.Reference, pullPolicy(v.Image.PullPolicy, v.Image.Reference)})
	}
	return append(list, wantedImage{imageUse{container: c.Name}, c.Image, pullPolicy(c.ImagePullPolicy, c.Image)})
}

// imageMounts are a container's volumes that are images, as the engine knows them.
func imageMounts(pod *corev1.Pod, c *corev1.Container, have map[imageUse]spec.Image) map[string]*rt.ImageSpec {
	mounts := map[string]*rt.ImageSpec{}
	for _, w := range wantedImages(pod, c) {
		if w.volume != "" {
			mounts[w.volume] = &rt.ImageSpec{Image: have[w.imageUse].Ref, UserSpecifiedImage: w.name, Annotations: pod.Annotations}
		}
	}
	return mounts
}

// forgetImages has the next start of a container look for its images anew.
func (m *machine) forgetImages(container string) {
	maps.DeleteFunc(m.images, func(use imageUse, _ spec.Image) bool { return use.container == container })
	if len(m.images) == 0 {
		m.images = map[imageUse]spec.Image{} // what was emptied keeps its memory
	}
}

// tellImage tells something about an image: of the pod when it is a volume's.
func (a *Agent) tellImage(pod *corev1.Pod, w wantedImage, eventtype, reason, message string) {
	if w.volume != "" {
		a.events.Event(pod, eventtype, reason, message)
		return
	}
	a.containerEvent(pod, w.container, eventtype, reason, message)
}

// preparePull knows which of a container's images are at hand.
func (m *machine) preparePull(container string) func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	have := map[imageUse]bool{}
	for use := range m.images {
		have[use] = use.container == container
	}
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
		for _, w := range wantedImages(pod, spec.Container(pod, s.Container)) {
			if !have[w.imageUse] {
				return unlessRedefined(w, m.pullImage(ctx, pod, w))
			}
		}
		return nil
	}
}

// pullImage has one image at hand for the next start of a container, by its pull
// policy.
func (m *machine) pullImage(ctx context.Context, pod *corev1.Pod, w wantedImage) func(*machine) {
	img, present, err := m.a.images.find(ctx, w.name)
	if err != nil {
		why := plan.Waiting{Reason: errInspect, Message: fmt.Sprintf("Failed to inspect image %q: %s", w.name, cri.Message(err))}
		if cri.IsInvalid(err) { // upstream finds it while it completes the name
			why = plan.Waiting{Reason: errImageName, Message: fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %s", w.name, w.name, cri.Message(err))}
		}
		return m.imageFailed(pod, w, why, "InspectFailed")
	}
	if w.policy == corev1.PullNever && !present {
		return m.imageAbsent(pod, w)
	}
	if !present || w.policy == corev1.PullAlways {
		m.a.tally.ImageWanted(w.policy, present, true)
		return func(m *machine) { m.fetch(pod, w) }
	}
	held, err := m.a.images.held(ctx, pod, w.name, img)
	if err != nil {
		return m.pullFailed(ctx, pod, w, err)
	}
	m.a.tally.ImageWanted(w.policy, present, held)
	switch {
	case !held:
		m.a.tellImage(pod, w, corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", w.name))
		return func(m *machine) { m.images[w.imageUse] = img }
	case w.policy == corev1.PullNever:
		return m.imageAbsent(pod, w) // whoever may not have it is not told that it is there
	}
	return func(m *machine) { m.fetch(pod, w) }
}

// imageAbsent holds a container back whose image may not be pulled.
func (m *machine) imageAbsent(pod *corev1.Pod, w wantedImage) func(*machine) {
	message := fmt.Sprintf("Container image %q is not present with pull policy of Never", w.name)
	return m.imageFailed(pod, w, plan.Waiting{Reason: errNever, Message: message}, errNever)
}

func pullPolicy(asked corev1.PullPolicy, image string) corev1.PullPolicy {
	if asked != "" {
		return asked
	}
	last := image[strings.LastIndex(image, "/")+1:]
	if strings.HasSuffix(last, ":latest") || !strings.ContainsAny(last, ":@") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// imageFailed holds a container back for want of its image.
func (m *machine) imageFailed(pod *corev1.Pod, w wantedImage, why plan.Waiting, reason string) func(*machine) {
	m.a.tellImage(pod, w, corev1.EventTypeWarning, reason, why.Message)
	m.a.tellImage(pod, w, corev1.EventTypeWarning, "Failed", "Error: "+why.Reason)
	return func(m *machine) {
		m.failures[w.container] = plan.Failure{Waiting: why, Until: time.Now().Add(pullRetry.Min)}
	}
}

// fetch pulls, unless the last failure is too fresh: then the container is shown
// to wait for the next attempt.
func (m *machine) fetch(pod *corev1.Pod, w wantedImage) {
	past := m.pulls[w.imageUse]
	if time.Now().Before(past.until) {
		text := fmt.Sprintf("Back-off pulling image %q", w.name)
		m.a.tellImage(m.pod, w, corev1.EventTypeNormal, "BackOff", text)
		m.a.tellImage(m.pod, w, corev1.EventTypeWarning, "Failed", "Error: "+errPullWait)
		why := plan.Waiting{Reason: errPullWait, Message: text + ": " + past.message}
		m.failures[w.container] = plan.Failure{Waiting: why, Until: past.until}
		return
	}
	step := plan.Step{Kind: plan.PullImage, Container: w.container}
	if m.stage != serving {
		return
	}
	m.launch(m.life, step.Key(), step, func(ctx context.Context) func(*machine) { return unlessRedefined(w, m.download(ctx, pod, w)) })
}

func (m *machine) download(ctx context.Context, pod *corev1.Pod, w wantedImage) func(*machine) {
	begin := time.Now()
	m.a.tellImage(pod, w, corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", w.name))
	img, took, err := m.a.images.pull(ctx, pod, w.name)
	if err != nil {
		return m.pullFailed(ctx, pod, w, err)
	}
	m.a.mark(m.uid, "pull image", w.name, begin)
	m.a.tellImage(pod, w, corev1.EventTypeNormal, "Pulled", fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		w.name, took.Truncate(time.Millisecond), time.Since(begin).Truncate(time.Millisecond), img.Size))
	end := time.Now()
	return func(m *machine) {
		if !m.birth.told {
			m.birth.pulls = append(m.birth.pulls, span{begin, end})
		}
		m.images[w.imageUse] = img
		delete(m.pulls, w.imageUse)
		delete(m.failures, w.container)
		delete(m.shown, w.container)
	}
}

func (m *machine) pullFailed(ctx context.Context, pod *corev1.Pod, w wantedImage, err error) func(*machine) {
	if ctx.Err() != nil {
		return nil
	}
	var missing []string
	if u := (*unkeyed)(nil); errors.As(err, &u) {
		err, missing = u.error, u.missing
	}
	reason := errPull
	if cri.IsInvalid(err) {
		reason = errImageName
	}
	text := cri.Message(err)
	m.a.tellImage(pod, w, corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", w.name, text))
	for special, why := range pullReasons {
		if rest, ok := strings.CutPrefix(text, special); ok {
			reason, text = special, fmt.Sprintf("image pull failed for %s because %s%s", w.name, why, rest)
		}
	}
	if reason == errPull {
		m.a.tellMissing(pod, missing)
	}
	m.a.tellImage(pod, w, corev1.EventTypeWarning, "Failed", "Error: "+reason)
	return func(m *machine) {
		past := m.pulls[w.imageUse]
		past.failures++
		past.until = time.Now().Add(pullRetry.After(past.failures))
		past.message = reason + ": " + text
		m.pulls[w.imageUse] = past
		m.failures[w.container] = plan.Failure{Waiting: plan.Waiting{Reason: reason, Message: text}, Until: time.Now().Add(pullSettle)}
	}
}
