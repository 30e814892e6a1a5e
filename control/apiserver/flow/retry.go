package flow

// maxRetryAfter bounds what a refused client is told to wait, in seconds.
const maxRetryAfter = 32

// retryAfter decides how long refused clients should stay away: twice as long when
// many were refused lately, a second less when few were, as upstream. It is
// guarded by its level.
type retryAfter struct {
	wait    int64 // the present advice, in seconds
	second  int64 // the one that count counts
	count   int64
	history [maxRetryAfter]struct{ second, count int64 } // by second modulo its length
	raised  int64
}

// drop notes that a request is refused at a second, and brings the advice up to
// date when a new one begins.
func (r *retryAfter) drop(second int64) {
	if second == r.second {
		r.count++
		return
	}
	slot := &r.history[((r.second%maxRetryAfter)+maxRetryAfter)%maxRetryAfter]
	slot.second, slot.count = r.second, r.count
	r.second, r.count = second, 1
	var lately int64
	for _, h := range &r.history {
		if h.count > 0 && h.second < second && second-h.second <= r.wait {
			lately += h.count
		}
	}
	switch {
	case second-r.raised >= r.wait && lately >= 3*r.wait:
		r.wait = min(2*r.wait, maxRetryAfter)
		r.raised = second
	case lately < r.wait && r.wait > 1:
		r.wait--
	}
}
