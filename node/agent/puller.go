package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
	"github.com/sampan-dev/sampan/node/agent/pulled"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// pullTimeout bounds one pull: a large image on a slow line takes its time, a
// registry that trickles bytes doesn't get for ever.
const pullTimeout = 30 * time.Minute

// puller fetches images for all pods: a few at a time, and an image that several
// pods want at once with the same credentials only once. A pull goes on for as
// long as somebody waits for it: the end of the pod that began it is nothing to
// the others, and nobody waits for a pull that he has given up.
type puller struct {
	engine cri.Engine
	slots  chan struct{}
	// keys are the credentials that a pod has for an image, and the names of its pull
	// secrets that are not there.
	keys    func(ctx context.Context, pod *corev1.Pod, image string) (have []keyring.Key, missing []string, err error)
	records *pulled.Records
	// pulled is told of each pull that went well: how large the image is, and how long
	// it took. It may be nil.
	pulled func(bytes uint64, took time.Duration)
	// rate bounds how many pulls begin; nil doesn't.
	rate flowcontrol.RateLimiter
	// spawn runs a pull beside those who wait for it.
	spawn func(func())

	mu      sync.Mutex
	flights map[string]*flight
}

// flight is one pull under way; done closes when image, took and err are set.
type flight struct {
	done  chan struct{}
	image spec.Image
	took  time.Duration
	err   error
	// waiting is how many want it; the last to go gives it up.
	waiting int
	cancel  context.CancelFunc
}

func newPuller(engine cri.Engine, records *pulled.Records, parallel int, spawn func(func())) *puller {
	return &puller{engine: engine, records: records, slots: make(chan struct{}, parallel), spawn: spawn, flights: map[string]*flight{}}
}

// find returns what the engine knows of an image; ok is false when it has none.
func (p *puller) find(ctx context.Context, name string) (spec.Image, bool, error) {
	got, err := p.engine.ImageStatus(ctx, &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: name, UserSpecifiedImage: name}})
	if cri.IsNotFound(err) {
		return spec.Image{}, false, nil
	}
	if err != nil || got.GetImage() == nil {
		return spec.Image{}, false, err
	}
	img := got.GetImage()
	out := spec.Image{Ref: img.GetId(), User: img.GetUsername(), Size: img.GetSize()}
	if uid := img.GetUid(); uid != nil {
		out.UID = &uid.Value
	}
	return out, true, nil
}

// pull fetches an image with the credentials that the pod has, one after the other,
// or with none when there are none. It returns how long the pull itself took, and at
// once when ctx ends.
// A failure is an *unkeyed where pull secrets were missing.
func (p *puller) pull(ctx context.Context, pod *corev1.Pod, image string) (spec.Image, time.Duration, error) {
	if p.rate != nil && !p.rate.TryAccept() {
		return spec.Image{}, 0, errPullRate
	}
	keys, missing, err := p.keys(ctx, pod, image)
	if err != nil {
		return spec.Image{}, 0, err
	}
	img, took, err := p.each(ctx, pod, image, keys)
	if err != nil && len(missing) > 0 {
		err = &unkeyed{err, missing}
	}
	return img, took, err
}

// unkeyed is a pull's failure without some of the pod's pull secrets.
type unkeyed struct {
	error
	missing []string
}

// Unwrap implements what errors.Is asks for.
func (u *unkeyed) Unwrap() error { return u.error }

// each pulls with one key after the other.
func (p *puller) each(ctx context.Context, pod *corev1.Pod, image string, keys []keyring.Key) (spec.Image, time.Duration, error) {
	if len(keys) == 0 {
		return p.once(ctx, pod, image, nil)
	}
	var failed []error
	for i := range keys {
		img, took, err := p.once(ctx, pod, image, &keys[i])
		if err == nil {
			return img, took, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 1 {
		return spec.Image{}, 0, failed[0]
	}
	return spec.Image{}, 0, tries(failed)
}

// tries is how pulls with several credentials failed.
type tries []error

// Error implements error, in the form in which upstream tells it.
func (t tries) Error() string {
	var texts []string
	for _, err := range t {
		if text := cri.Message(err); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	if len(texts) == 1 {
		return texts[0]
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// Unwrap implements what errors.Is asks for.
func (t tries) Unwrap() []error { return t }

// held says whether an image that is there may not be used by the pod before it has
// pulled it itself.
func (p *puller) held(ctx context.Context, pod *corev1.Pod, image string, img spec.Image) (bool, error) {
	return p.records.Held(image, img.Ref, func() ([]keyring.Key, error) {
		keys, _, err := p.keys(ctx, pod, image)
		return keys, err
	})
}

// leave says whether a pod may have an image that is there and that it does not name, by
// the rule for those that it does: under one name at least.
func (p *puller) leave(pod *corev1.Pod) cri.Leave {
	return func(ctx context.Context, names []string, id string) error {
		if len(names) == 0 {
			names = []string{id}
		}
		var failed error
		for _, name := range names {
			held, err := p.held(ctx, pod, name, spec.Image{Ref: id})
			if err == nil && !held {
				return nil
			}
			failed = errors.Join(failed, err)
		}
		if failed == nil {
			failed = fmt.Errorf("it was pulled with credentials that pod %q has not", pod.Namespace+"/"+pod.Name)
		}
		return failed
	}
}

// once waits for a pull that is under way, or begins it.
func (p *puller) once(ctx context.Context, pod *corev1.Pod, image string, with *keyring.Key) (spec.Image, time.Duration, error) {
	key := image
	var auth *rt.AuthConfig
	if with != nil {
		key, auth = image+"\x00"+with.Hash(), with.Auth()
	}
	p.mu.Lock()
	f := p.flights[key]
	joined := f != nil
	if !joined {
		f = p.begin(ctx, key, with, &rt.PullImageRequest{
			Image: &rt.ImageSpec{Image: image, UserSpecifiedImage: image}, Auth: auth,
			SandboxConfig: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID)}},
		})
	}
	f.waiting++
	p.mu.Unlock()
	select {
	case <-f.done:
		if joined && f.err == nil {
			p.records.Used(image, f.image.Ref, with)
		}
		return f.image, f.took, f.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		p.forget(key, f) // who comes now begins anew
	}
	return spec.Image{}, 0, context.Cause(ctx)
}

// begin starts a pull that outlives ctx; p.mu is held.
func (p *puller) begin(ctx context.Context, key string, with *keyring.Key, r *rt.PullImageRequest) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), cancel: cancel}
	p.flights[key] = f
	p.spawn(func() {
		defer cancel()
		f.image, f.took, f.err = p.fetch(ctx, with, r)
		p.mu.Lock()
		p.forget(key, f)
		p.mu.Unlock()
		close(f.done)
	})
	return f
}

func (p *puller) forget(key string, f *flight) {
	if p.flights[key] == f {
		delete(p.flights, key)
	}
}

// fetch asks the engine when it is this pull's turn, and has it on record.
func (p *puller) fetch(ctx context.Context, with *keyring.Key, r *rt.PullImageRequest) (img spec.Image, took time.Duration, err error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return img, 0, context.Cause(ctx)
	}
	image := r.GetImage().GetImage()
	if err := p.records.Begin(image); err != nil {
		return img, 0, fmt.Errorf("Failed to record image pull intent for container image %q: %w", image, err) //nolint:staticcheck // upstream's sentence
	}
	defer func() { p.records.End(image, img.Ref, with) }()
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	begin := time.Now()
	_, err = p.engine.PullImage(ctx, r)
	took = time.Since(begin)
	if err != nil {
		return img, took, err
	}
	got, present, err := p.find(ctx, image)
	if err == nil && !present {
		err = fmt.Errorf("image %q isn't there after it was pulled", image)
	}
	if err == nil && p.pulled != nil {
		p.pulled(got.Size, took)
	}
	return got, took, err
}
