package resourcequota

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kinds/quota"
)

// Through is the annotation of a quota that says up to which revision of each
// kind what has gone is taken off its status: "pods@417 services@96". It is
// written together with the status, in one compare-and-swap, so that of two
// controllers that see the same pod go one takes it off: the other finds the mark
// beyond it. Whoever removes the annotation loses that for a moment; a count in
// calm mends it.
const Through = "quota.sampan.dev/taken-off-through"

// freed is something that has gone. It went after the revision after and not
// after the revision at: a watch tells each event, so that they are those of two
// neighbours, but a mirror that was filled anew only knows that it has gone
// meanwhile.
type freed struct {
	kind      string
	after, at int64
	amount    corev1.ResourceList
}

// marks are revisions by kind.
type marks map[string]int64

// marksOf reads a quota's annotation; what can't be read counts as absent.
func marksOf(q *corev1.ResourceQuota) marks {
	m := marks{}
	for _, word := range strings.Fields(q.Annotations[Through]) {
		kind, at, ok := strings.Cut(word, "@")
		if n, err := strconv.ParseInt(at, 10, 64); ok && err == nil && n > 0 {
			m[kind] = n
		}
	}
	return m
}

func (m marks) String() string {
	words := make([]string, 0, len(m))
	for _, kind := range slices.Sorted(maps.Keys(m)) {
		words = append(words, fmt.Sprintf("%s@%d", kind, m[kind]))
	}
	return strings.Join(words, " ")
}

// on puts the marks on a quota.
func (m marks) on(q *corev1.ResourceQuota) {
	if len(m) == 0 {
		return
	}
	if q.Annotations == nil {
		q.Annotations = map[string]string{}
	}
	q.Annotations[Through] = m.String()
}

// takeOff is the sum of what has gone and has not been taken off, as the marks
// have it, and moves the marks beyond it. news says that they have moved. What may
// or may not have been taken off is left for a count.
func (b *book) takeOff(through marks) (sum corev1.ResourceList, news bool) {
	b.forget(through)
	reached := maps.Clone(through)
	for _, f := range b.gone {
		if f.after < reached[f.kind] {
			b.doubtful = true
		} else {
			sum = quota.Add(sum, f.amount)
		}
		through[f.kind], news = max(through[f.kind], f.at), true
	}
	return sum, news
}

// forget drops what is known to have been taken off.
func (b *book) forget(through marks) {
	b.gone = slices.DeleteFunc(b.gone, func(f freed) bool { return f.at <= through[f.kind] })
}

// behind says whether somebody has taken off what the monitors have not been told
// of yet: their count would be too high. The caller holds mu.
func (c *Controller) behind(q *corev1.ResourceQuota, through marks) bool {
	for _, m := range c.counting(q) {
		if to := through[m.name]; m.at < to && m.revision() <= to {
			return true
		}
	}
	return false
}

// advance moves the marks to where a count has looked. The caller holds mu.
func (c *Controller) advance(q *corev1.ResourceQuota, through marks) {
	for _, m := range c.counting(q) {
		if m.at > through[m.name] {
			through[m.name] = m.at
		}
	}
}

// counting are the monitors of the kinds that a quota caps. The caller holds mu.
func (c *Controller) counting(q *corev1.ResourceQuota) []*monitor {
	var all []*monitor
	for _, m := range c.monitors {
		if len(m.meter.Measures(quota.Names(q.Spec.Hard))) > 0 {
			all = append(all, m)
		}
	}
	return all
}
