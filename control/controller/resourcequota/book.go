package resourcequota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/kinds/quota"
	"github.com/sampan-dev/sampan/reconcile"
)

// book is what is known of one quota beside its status.
type book struct {
	uid types.UID
	// gone is what has gone, and is not known to have been taken off, in the order
	// of the revisions of each kind.
	gone []freed
	// doubtful: something has gone of which nobody can say whether another leader
	// has taken it off. The next count in calm finds out.
	doubtful bool
	// risen is when a request was last seen to add something.
	risen time.Time
	// settles is when a first count is to be repeated; zero: it has been.
	settles time.Time
	// counted is when less than the status said would last have been believed.
	counted time.Time
	// overdue are pods that the last count left out, since they should be gone:
	// that they do go frees nothing more.
	overdue map[types.UID]bool
}

// book is the quota's, made when it is new. The caller holds mu.
func (c *Controller) book(key reconcile.Key) *book {
	b := c.books[key]
	if b == nil {
		b = &book{risen: time.Now()}
		c.books[key] = b
	}
	return b
}

// plan is what becomes of a quota's status.
type plan struct {
	write      bool
	hard, used corev1.ResourceList
	through    marks         // up to where what has gone is taken off
	before     book          // as it was
	again      time.Duration // until another look
}

// plan decides what a quota's status should be. ready is false while a kind that
// the quota caps has not been listed.
func (c *Controller) plan(key reconcile.Key, q *corev1.ResourceQuota, now time.Time) (p plan, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready(q) {
		return plan{}, false
	}
	b := c.book(key)
	through := marksOf(q)
	amount, news := b.takeOff(through)
	p = plan{before: *b, hard: quota.Add(nil, q.Spec.Hard), through: through}
	calm := now.Sub(b.risen) >= quiet
	due := calm && (b.doubtful || b.counted.Before(b.risen) || now.Sub(b.counted) >= resync)
	first := !quota.Equal(q.Spec.Hard, q.Status.Hard) || len(q.Status.Used) == 0
	base := quota.Only(quota.Less(q.Status.Used, amount), quota.Names(p.hard))
	wanted := first || due || !b.settles.IsZero() && !now.Before(b.settles)
	behind := wanted && c.behind(q, through)
	switch {
	case behind && first:
		return plan{again: behindRetry}, true
	case wanted && !behind:
		base = c.recount(b, q, base, now, due)
		c.advance(q, through)
	}
	p.used = base
	p.write = !quota.Equal(q.Status.Hard, p.hard) || !quota.Equal(q.Status.Used, p.used) || news
	switch {
	case behind:
	case first && p.write:
		b.settles = now.Add(settle)
	case !b.settles.IsZero() && !now.Before(b.settles):
		b.settles = time.Time{}
	}
	p.again = b.next(now)
	if behind {
		p.again = behindRetry
	}
	return p, true
}

// next is how long nothing need be looked at.
func (b *book) next(now time.Time) time.Duration {
	at := b.counted.Add(resync)
	if b.doubtful || b.counted.Before(b.risen) {
		at = b.risen.Add(quiet)
	}
	if !b.settles.IsZero() && b.settles.Before(at) {
		at = b.settles
	}
	return max(at.Sub(now), time.Millisecond)
}

// recount corrects base by what the namespace holds: upwards always, downwards
// where calm. The caller holds mu.
func (c *Controller) recount(b *book, q *corev1.ResourceQuota, base corev1.ResourceList, now time.Time, calm bool) corev1.ResourceList {
	found, overdue := c.count(q, now)
	for name, amount := range found {
		have, known := base[name]
		if !known || amount.Cmp(have) > 0 || calm {
			base[name] = amount
		}
	}
	if calm {
		b.counted, b.overdue, b.doubtful = now, overdue, false
	}
	return base
}

// undo puts back what a plan took out of the book when it could not be written.
// What has gone is in the book still; should it have been written all the same, the
// quota's marks will tell.
func (c *Controller) undo(key reconcile.Key, q *corev1.ResourceQuota, p plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.books[key]
	if b == nil || b.uid != q.UID {
		return
	}
	b.settles, b.counted = time.Now().Add(settle), p.before.counted
	b.overdue, b.doubtful = p.before.overdue, p.before.doubtful
}

// written forgets what a plan that has been written took off.
func (c *Controller) written(key reconcile.Key, q *corev1.ResourceQuota, p plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.books[key]; b != nil && b.uid == q.UID {
		b.forget(p.through)
	}
}
