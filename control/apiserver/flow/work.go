package flow

import (
	"math"
	"net/url"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What work is estimated by; upstream's numbers.
const (
	maxListSeats  = 100
	maxWriteSeats = 10
	bytesPerSeat  = 100_000
	// streamed is what a list out of the cache holds at once at most: its bytes
	// are shared with the cache and written piece by piece.
	streamed = 1_000_000
	// watchesPerSeat and eventTime: so many watchers keep a seat for so long.
	watchesPerSeat = 10
	eventTime      = 5 * time.Millisecond
)

// work is what a request is expected to take.
type work struct {
	// seats are held while it is served.
	seats int
	// finalSeats are held for after more, for the watchers of what it wrote.
	finalSeats int
	after      time.Duration
}

// estimate tells the work of a request whose head has been read.
func (o *Order) estimate(r *request, query url.Values, l *level) work {
	switch r.asked.Verb {
	case "list", "watch":
		return work{seats: o.listSeats(r, query, l)}
	case "create", "update", "patch", "delete":
		if r.asked.Resource {
			return o.writeWork(r, l)
		}
	}
	return work{seats: 1}
}

// listSeats: what a list loads, in seats. A watch counts when it begins with the
// present state.
func (o *Order) listSeats(r *request, query url.Values, l *level) int {
	if r.asked.Verb == "watch" && !beginsWithState(query) {
		return 1
	}
	objects, bytes, ok := o.cfg.Stored(r.asked.Target.Resource)
	if !ok {
		return 1
	}
	var opts metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &opts, nil); err == nil && opts.Limit > 0 {
		objects = min(objects, opts.Limit)
	}
	if r.name != "" {
		objects = min(objects, 1)
	}
	seats := int(math.Ceil(float64(min(objects*bytes, streamed)) / bytesPerSeat))
	return max(1, min(seats, l.widest(maxListSeats)))
}

// beginsWithState says whether a watch asks for the present state first.
func beginsWithState(query url.Values) bool {
	if v, ok := query["sendInitialEvents"]; ok && len(v) > 0 {
		return v[0] == "true" || v[0] == "1"
	}
	rv := query.Get("resourceVersion")
	return rv == "" || rv == "0"
}

func (o *Order) writeWork(r *request, l *level) work {
	t := r.asked.Target
	if t.Resource.Resource == "serviceaccounts" && t.Subresource == "token" {
		return work{seats: 1} // nobody watches tokens
	}
	n := o.watches.interested(r)
	if n < watchesPerSeat {
		return work{seats: 1}
	}
	final := math.Ceil(float64(n) / watchesPerSeat)
	allowed := min(final, float64(l.widest(maxWriteSeats)))
	return work{seats: max(1, int(allowed)), finalSeats: int(allowed), after: time.Duration(final / allowed * float64(eventTime))}
}

// widest is the most seats that one request may take at this level.
func (l *level) widest(limit int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.maxSeats == 0 {
		return limit
	}
	return min(l.maxSeats, limit)
}

// watched is what a watch is limited to.
type watched struct {
	resource        schema.GroupResource
	namespace, name string
}

// watchers counts the watches there are.
type watchers struct {
	mu     sync.Mutex
	counts map[watched]int
}

// add counts a watch until the function that it returns is called. Watches of one
// node's pods do not count: each pod has at most one of these watchers.
func (w *watchers) add(r *request, query url.Values) (forget func()) {
	if r.asked.Target.Resource.Resource == "pods" && exactly(query, "spec.nodeName") != "" {
		return func() {}
	}
	key := watched{r.asked.Target.Resource.GroupResource(), r.namespace, r.name}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[key]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.counts[key]--; w.counts[key] <= 0 {
			delete(w.counts, key)
		}
	}
}

// interested is how many watches may see what r writes.
func (w *watchers) interested(r *request) (n int) {
	gr := r.asked.Target.Resource.GroupResource()
	w.mu.Lock()
	defer w.mu.Unlock()
	n = w.counts[watched{gr, "", ""}]
	if r.namespace != "" {
		n += w.counts[watched{gr, r.namespace, ""}]
	}
	if r.name != "" {
		n += w.counts[watched{gr, "", r.name}]
		if r.namespace != "" {
			n += w.counts[watched{gr, r.namespace, r.name}]
		}
	}
	return n
}

// exactly is the value that a field selector wants a field to have, or "".
func exactly(query url.Values, field string) string {
	text := query.Get("fieldSelector")
	if text == "" || !strings.Contains(text, field) {
		return ""
	}
	selector, err := fields.ParseSelector(text)
	if err != nil {
		return ""
	}
	value, _ := selector.RequiresExactMatch(field)
	return value
}
