package admit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds/quota"
)

const (
	// quotaPatience bounds how long a request waits to be counted.
	quotaPatience = 10 * time.Second
	// maxQuotaRounds is how often counting begins anew because somebody else has
	// changed a quota meanwhile.
	maxQuotaRounds = 10
	// maxRemembered quotas are remembered as this server last wrote them.
	maxRemembered = 4096
)

// Updater writes objects as the server itself.
type Updater interface {
	Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
}

// QuotaLimit makes a resource one that may only be used where a quota covers it.
type QuotaLimit struct {
	// Resource is whose objects are limited.
	Resource schema.GroupResource
	// MatchContains are parts of the names of the capped resources that must be
	// covered ("requests.storage").
	MatchContains []string
	// MatchScopes are scopes of objects that must be covered.
	MatchScopes []quota.Requirement
}

// quotas reserves what a request uses in every quota that covers it, before it is
// stored: the status of the quota is the ledger, and compare-and-swap what keeps
// two requests, or two servers, from spending the same. What is not stored in the
// end is given back. The quota controller gives back what is deleted.
//
// Requests in one namespace that come at once are counted together, with one
// write a quota. It must be the last rule: what it sets aside is to be used.
type quotas struct {
	Judging
	*ledger
}

// ledger is the state of the rule.
type ledger struct {
	objects Reader
	writer  Updater
	limits  []QuotaLimit
	now     func() time.Time

	mu    sync.Mutex
	lanes map[string][]*bill // namespaces that are being counted, with who waits
	last  map[string]*corev1.ResourceQuota
}

// unlimited enforces nothing.
type unlimited struct{ Judging }

func (unlimited) Validate(context.Context, *resource.Attributes) error { return nil }

func newQuotas(cfg Config) Rule {
	if cfg.Writer == nil {
		return unlimited{}
	}
	return quotas{ledger: &ledger{objects: cfg.Objects, writer: cfg.Writer, limits: cfg.QuotaLimits, now: cfg.Now,
		lanes: map[string][]*bill{}, last: map[string]*corev1.ResourceQuota{}}}
}

// bill is one request that wants to be counted.
type bill struct {
	a     *resource.Attributes
	meter quota.Meter
	// booked is what has been written down for it, by quota.
	booked map[string]entry
	paid   chan error // buffered: one answer
}

// entry is what one quota was charged.
type entry struct {
	quota  *corev1.ResourceQuota
	amount corev1.ResourceList
}

func (r quotas) Validate(ctx context.Context, a *resource.Attributes) error {
	gr := a.Target.Resource.GroupResource()
	if a.Target.Namespace == "" || a.Object == nil || is(a, "", "namespaces") || quota.Ignored(gr) || !countable(a) {
		return nil
	}
	known, err := r.cached(ctx, a.Target.Namespace)
	if err != nil {
		return fmt.Errorf("error resolving quota: %w", err)
	}
	if len(known) == 0 && len(r.limits) == 0 {
		return nil
	}
	b := &bill{a: a, meter: quota.For(gr, devices{ctx: context.WithoutCancel(ctx), objects: r.objects, namespace: a.Target.Namespace}),
		booked: map[string]entry{}, paid: make(chan error, 1)}
	r.queue(ctx, b)
	if err := r.await(ctx, b); err != nil {
		return err
	}
	if len(b.booked) > 0 {
		resource.OnDone(ctx, func(stored bool) {
			if !stored {
				r.giveBack(ctx, b)
			}
		})
	}
	return nil
}

// await waits for the answer. Who stops waiting may be counted still: then it is
// taken back.
func (l *ledger) await(ctx context.Context, b *bill) error {
	wait, cancel := context.WithTimeout(ctx, quotaPatience)
	defer cancel()
	select {
	case err := <-b.paid:
		return err
	case <-wait.Done():
	}
	go func() {
		if <-b.paid == nil {
			l.giveBack(ctx, b)
		}
	}()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return apierrors.NewInternalError(errors.New("resource quota evaluation timed out"))
}

// queue hands the bill to the one who counts in its namespace, and appoints one
// if there is none.
func (l *ledger) queue(ctx context.Context, b *bill) {
	namespace := b.a.Target.Namespace
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting, running := l.lanes[namespace]
	l.lanes[namespace] = append(waiting, b)
	if !running {
		go l.count(context.WithoutCancel(ctx), namespace)
	}
}

// count answers the bills of a namespace, all that wait at a time, until none
// waits.
func (l *ledger) count(ctx context.Context, namespace string) {
	for {
		l.mu.Lock()
		batch := l.lanes[namespace]
		if len(batch) == 0 {
			delete(l.lanes, namespace)
			l.mu.Unlock()
			return
		}
		l.lanes[namespace] = nil
		l.mu.Unlock()
		l.settle(ctx, namespace, batch)
	}
}

// settle answers every bill of a batch.
func (l *ledger) settle(ctx context.Context, namespace string, batch []*bill) {
	ctx, cancel := context.WithTimeout(ctx, quotaPatience)
	defer cancel()
	open, read := batch, l.remembered
	for range maxQuotaRounds {
		var err error
		if open, err = l.round(ctx, namespace, open, read); err != nil {
			l.failAll(ctx, open, err)
			return
		}
		if len(open) == 0 {
			return
		}
		read = l.stored
	}
	l.failAll(ctx, open, apierrors.NewConflict(corev1.Resource("resourcequotas"), "",
		errors.New("the object has been modified; please apply your changes to the latest version and try again")))
}

// round counts the open bills against the quotas as they are, writes the quotas
// down, and returns the bills that a lost race leaves open.
func (l *ledger) round(ctx context.Context, namespace string, open []*bill, read func(context.Context, string) ([]*corev1.ResourceQuota, error)) ([]*bill, error) {
	known, err := read(ctx, namespace)
	if err != nil {
		return open, err
	}
	sheet := newSheet(known)
	wanting := make([]*bill, 0, len(open))
	for _, b := range open {
		changes, err := l.charge(sheet, b)
		switch {
		case err != nil:
			l.giveBack(ctx, b)
			b.paid <- err
		case len(changes) == 0 || b.a.DryRun:
			b.paid <- nil
		default:
			sheet.take(b, changes)
			wanting = append(wanting, b)
		}
	}
	lost := map[string]bool{}
	for name := range sheet.changed {
		if err := l.write(ctx, sheet, name); err != nil {
			if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				return wanting, err
			}
			lost[name] = true
		}
	}
	return sheet.answer(wanting, lost), nil
}

func (l *ledger) failAll(ctx context.Context, open []*bill, err error) {
	for _, b := range open {
		l.giveBack(ctx, b)
		b.paid <- err
	}
}

// write stores one quota of the sheet and books its charges.
func (l *ledger) write(ctx context.Context, sheet *sheet, name string) error {
	written, err := l.update(ctx, sheet.quotas[name])
	if err != nil {
		return err
	}
	for _, c := range sheet.changed[name] {
		c.bill.booked[name] = entry{quota: written, amount: c.amount}
	}
	return nil
}

// giveBack takes what was booked for a bill off the quotas that still are the
// same. Should that fail, the quota controller finds it out.
func (l *ledger) giveBack(ctx context.Context, b *bill) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quotaPatience)
	defer cancel()
	for name, e := range b.booked {
		for range maxQuotaRounds {
			if done := l.takeOff(ctx, e); done {
				break
			}
		}
		delete(b.booked, name)
	}
}

// takeOff makes one attempt; done says that none is needed any more.
func (l *ledger) takeOff(ctx context.Context, e entry) (done bool) {
	obj, err := l.objects.Get(ctx, core("resourcequotas", e.quota.Namespace, e.quota.Name), metav1.GetOptions{})
	if err != nil {
		return true
	}
	have, ok := obj.(*corev1.ResourceQuota)
	if !ok || have.UID != e.quota.UID {
		return true
	}
	next := have.DeepCopy()
	next.Status.Used = quota.Less(have.Status.Used, e.amount)
	_, err = l.update(ctx, next)
	return err == nil || !apierrors.IsConflict(err)
}
