package controller

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/reconcile"
)

// Triggers tells when what a service's endpoints show last changed: from there
// proxies, and those who watch them, measure how late they are. It follows upstream's
// TriggerTimeTracker. It may be used from any goroutine, for one service by one at a
// time; the zero value is ready.
type Triggers struct {
	mu       sync.Mutex
	services map[reconcile.Key]triggers
}

// triggers are when a service and its pods, by name, had last changed, what the last
// answer was, and whether it has come to nothing.
type triggers struct {
	service time.Time
	pods    map[string]time.Time
	answer  time.Time
	lost    bool
}

// Next is when the first of the changes happened that have come to a service or its
// pods since it was last asked, in the form of the annotation; "" when none is known to
// have. A service that it has not been asked about began when it was made.
func (t *Triggers) Next(key reconcile.Key, service *corev1.Service, pods []*corev1.Pod) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, known := t.services[key]
	now := triggers{service: service.CreationTimestamp.Time, pods: map[string]time.Time{}}
	var first time.Time
	consider := func(at, before time.Time) {
		if at.After(before) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	consider(now.service, was.service)
	for _, pod := range pods {
		if _, since := Ready(pod); !since.IsZero() {
			now.pods[pod.Name] = since.Time
			consider(since.Time, was.pods[pod.Name])
		}
	}
	if was.lost {
		consider(was.answer, time.Time{})
	}
	if !known {
		first = now.service
	}
	if t.services == nil {
		t.services = map[reconcile.Key]triggers{}
	}
	now.answer = first
	t.services[key] = now
	if first.IsZero() {
		return ""
	}
	return first.UTC().Format(time.RFC3339Nano)
}

// Lost notes that nobody has been told the last answer: what was to be written with it
// was not. The next answer will be no later.
func (t *Triggers) Lost(key reconcile.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was, known := t.services[key]; known {
		was.lost = true
		t.services[key] = was
	}
}

// Forget drops what is known of a service that is gone.
func (t *Triggers) Forget(key reconcile.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.services, key)
}
