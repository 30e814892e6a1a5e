package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/image"
)

// How often a long pull is told of: in the record that "sampan why" reads, and in
// events.
const (
	pullMarkEvery  = time.Second
	pullEventEvery = 30 * time.Second
)

// pullTeller tells how far the images are that pods wait for.
type pullTeller struct {
	timeline *timeline.Recorder
	pulls    image.Pulls
	// events are there once the control plane is.
	events atomic.Pointer[client.Recorder]
}

// begin follows one pull of the engine.
func (p *pullTeller) begin(r *rt.PullImageRequest) (tell func(image.Progress), end func()) {
	pod, ref := r.GetSandboxConfig().GetMetadata(), r.GetImage().GetImage()
	uid := pod.GetUid()
	if uid == "" {
		return func(image.Progress) {}, func() {}
	}
	remember, forget := p.pulls.Begin(uid, ref)
	mark := timeline.Mark{Step: timeline.Run, Name: explain.Pulling, Start: time.Now()}
	marked, told := pacer{every: pullMarkEvery}, pacer{every: pullEventEvery, last: mark.Start}
	tell = func(at image.Progress) {
		remember(at)
		if !marked.due() {
			return
		}
		for _, s := range p.pulls.Of(uid) {
			if s.Ref != ref {
				continue
			}
			now := mark
			now.Detail = fmt.Sprintf("image %q: %.1f of %.1f MB, %d of %d layers", ref, float64(s.Done)/1e6, float64(s.Total)/1e6, s.Ready, s.Layers)
			p.timeline.Replace(uid, now)
			if told.due() {
				p.events.Load().EventRef(corev1.ObjectReference{
					APIVersion: "v1", Kind: "Pod", Namespace: pod.GetNamespace(), Name: pod.GetName(), UID: types.UID(uid),
				}, corev1.EventTypeNormal, "Pulling", "Pulling "+now.Detail)
			}
		}
	}
	return tell, func() {
		forget()
		p.timeline.Replace(uid, mark)
	}
}

// pacer says yes once in a while, to any goroutine.
type pacer struct {
	every time.Duration
	mu    sync.Mutex
	last  time.Time
}

func (p *pacer) due() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.every {
		return false
	}
	p.last = time.Now()
	return true
}
