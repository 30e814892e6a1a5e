package cache

import "time"

const (
	// paceBurst is how many batches a paced watcher may be given one right after the
	// other, and paceEvery is how often it gets one more. Few watches are ever as
	// busy as this. On one that is, waiting brings events together: of what a
	// delivery over HTTPS costs, nearly all is by the batch.
	paceBurst = 32
	paceEvery = 5 * time.Millisecond
	// paceLate is how long it rests at most after a batch that came late: where
	// everybody is late there is no time to wake everybody for each event.
	paceLate = 20 * time.Millisecond
)

// pace bounds how often something is done. The zero value bounds nothing.
type pace struct {
	on   bool
	left int       // how many may be done at once
	at   time.Time // when left was right
	rest time.Time // not before then
}

// took notes that it has been done, for what happened at a time; zero: long ago.
func (p *pace) took(happened time.Time) {
	if !p.on {
		return
	}
	now := time.Now()
	if late := now.Sub(happened); late > paceEvery && !happened.IsZero() {
		p.rest = now.Add(min(late, paceLate))
	}
	if more := int(now.Sub(p.at) / paceEvery); more > 0 {
		p.left = min(p.left+more, paceBurst)
		p.at = p.at.Add(time.Duration(more) * paceEvery)
		if p.left == paceBurst {
			p.at = now
		}
	}
	p.left--
}

// wait is how long it must not be done.
func (p *pace) wait() time.Duration {
	if !p.on {
		return 0
	}
	next := p.rest
	if p.left <= 0 {
		if token := p.at.Add(paceEvery * time.Duration(1-p.left)); token.After(next) {
			next = token
		}
	}
	if next.IsZero() {
		return 0
	}
	return time.Until(next)
}
