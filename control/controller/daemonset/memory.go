package daemonset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// Delays before another failed pod of one node is removed, as upstream.
	firstDelay   = time.Second
	longestDelay = 15 * time.Minute
	// share of the time that one set may take: a round looks at every node, so on
	// a large cluster the pods' events are gathered.
	share = 5
)

// memory is what is known of a set from earlier rounds.
type memory struct {
	uid      types.UID
	observed int64 // the generation that the failures are of
	failures map[string]failure
	idle     time.Time // when the next round may begin
}

// failure is when a failed pod was last removed from a node, and for how long the
// next stays.
type failure struct {
	at    time.Time
	delay time.Duration
}

// of returns the memory of a set. A change of the set begins anew, with other
// pods. The caller holds the lock.
func (c *Controller) of(key reconcile.Key, ds *appsv1.DaemonSet) *memory {
	m := c.memory[key]
	if m == nil {
		m = &memory{}
		c.memory[key] = m
	}
	if ds != nil && (m.uid != ds.UID || m.observed != ds.Generation) {
		m.uid, m.observed, m.failures = ds.UID, ds.Generation, map[string]failure{}
	}
	return m
}

func (c *Controller) wait(key reconcile.Key, ds *appsv1.DaemonSet, node string, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.of(key, ds).failures[node]
	return max(0, f.at.Add(f.delay).Sub(now))
}

func (c *Controller) noteFailure(key reconcile.Key, ds *appsv1.DaemonSet, node string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.of(key, ds)
	f := m.failures[node]
	switch {
	case f.delay == 0 || now.Sub(f.at) > 2*longestDelay:
		f.delay = firstDelay
	default:
		f.delay = min(2*f.delay, longestDelay)
	}
	f.at = now
	m.failures[node] = f
}

// noteCost keeps the next rounds that pods bring about at a distance.
func (c *Controller) noteCost(key reconcile.Key, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.of(key, nil).idle = now.Add(share * now.Sub(began))
}

// soon looks at a set when its last round has been paid for.
func (c *Controller) soon(key reconcile.Key) {
	c.mu.Lock()
	idle := time.Time{}
	if m := c.memory[key]; m != nil {
		idle = m.idle
	}
	c.mu.Unlock()
	c.loop.EnqueueAfter(key, time.Until(idle))
}

func (c *Controller) forget(key reconcile.Key) {
	c.mu.Lock()
	delete(c.memory, key)
	c.mu.Unlock()
	c.ownSets.Forget(key)
	c.ownPods.Forget(key)
	c.history.Own.Forget(key)
}
