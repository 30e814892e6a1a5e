package admit

import (
	"context"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds/quota"
)

// sheet is the quotas of a namespace with what one round of counting adds.
type sheet struct {
	quotas  map[string]*corev1.ResourceQuota // own copies once changed
	changed map[string][]charge
}

// charge is what one bill costs one quota.
type charge struct {
	bill   *bill
	amount corev1.ResourceList
}

func newSheet(known []*corev1.ResourceQuota) *sheet {
	s := &sheet{quotas: map[string]*corev1.ResourceQuota{}, changed: map[string][]charge{}}
	for _, q := range known {
		s.quotas[q.Name] = q
	}
	return s
}

// take adds a bill's changes to the running totals.
func (s *sheet) take(b *bill, changes map[string]corev1.ResourceList) {
	for name, amount := range changes {
		if len(s.changed[name]) == 0 {
			s.quotas[name] = s.quotas[name].DeepCopy()
		}
		q := s.quotas[name]
		q.Status.Used = quota.Add(q.Status.Used, amount)
		s.changed[name] = append(s.changed[name], charge{bill: b, amount: amount})
	}
}

// answer grants the bills all of whose quotas were written, and returns the
// others.
func (s *sheet) answer(bills []*bill, lost map[string]bool) []*bill {
	open := map[*bill]bool{}
	for name := range lost {
		for _, c := range s.changed[name] {
			open[c.bill] = true
		}
	}
	left := make([]*bill, 0, len(open))
	for _, b := range bills {
		if open[b] {
			left = append(left, b)
			continue
		}
		b.paid <- nil
	}
	return left
}

// cached are a namespace's quotas out of the watch cache.
func (l *ledger) cached(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	return listed[*corev1.ResourceQuota](ctx, l.objects, core("resourcequotas", namespace, ""))
}

// remembered are the cached quotas, or what this server itself wrote after them.
func (l *ledger) remembered(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	known, err := l.cached(ctx, namespace)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range known {
		mine, ok := l.last[ledgerKey(q)]
		switch {
		case !ok:
		case mine.UID == q.UID && revision(mine) > revision(q):
			known[i] = mine
		default:
			delete(l.last, ledgerKey(q))
		}
	}
	return known, nil
}

// stored are a namespace's quotas as the store has them.
func (l *ledger) stored(ctx context.Context, namespace string) ([]*corev1.ResourceQuota, error) {
	list, err := l.objects.List(ctx, core("resourcequotas", namespace, ""), metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return itemsOf[*corev1.ResourceQuota](list)
}

// update swaps a quota's status and remembers it.
func (l *ledger) update(ctx context.Context, q *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	obj, err := l.writer.Update(ctx, core("resourcequotas", q.Namespace, q.Name).Sub("status"), q, metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	written, ok := obj.(*corev1.ResourceQuota)
	if !ok {
		return q, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) >= maxRemembered {
		clear(l.last)
	}
	l.last[ledgerKey(written)] = written
	return written, nil
}

func ledgerKey(q *corev1.ResourceQuota) string { return q.Namespace + "/" + q.Name }

func revision(q *corev1.ResourceQuota) int64 {
	n, err := strconv.ParseInt(q.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// names are the sheet's quotas in order, so that refusals do not depend on luck.
func (s *sheet) names() []string { return sortedKeys(s.quotas) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
