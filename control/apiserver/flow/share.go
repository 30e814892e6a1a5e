package flow

import (
	"context"
	"math"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

const (
	// lendEvery is how often seats are lent anew while a level presses.
	lendEvery = 10 * time.Second
	// calmAfter is how many such periods without pressure end the lending.
	calmAfter = 3
	// smoothing is how slowly an old peak of demand is forgotten, per period:
	// half of it in five minutes. Upstream's number.
	smoothing = 0.977
	// widest is the share of a level that one request may take.
	widest = 0.15
)

// share divides seats among levels by their shares and sets what each may lend
// and borrow. It returns the sum, which rounding makes a little more than seats.
func share(seats int, levels []*flowcontrolv1.PriorityLevelConfiguration, into map[string]*level) (sum int) {
	var shares float64
	for _, l := range levels {
		s, _, _ := portions(l)
		shares += float64(s)
	}
	for _, l := range levels {
		mine, lend, borrow := portions(l)
		nominal := int(math.Ceil(float64(seats) * float64(mine) / max(shares, 1)))
		upper := nominal + seats
		if borrow != nil {
			upper = nominal + percent(nominal, *borrow)
		}
		into[l.Name].configure(l, nominal, nominal-percent(nominal, lend), upper)
		sum += nominal
	}
	return sum
}

func percent(of int, p int32) int { return int(math.Round(float64(of) * float64(p) / 100)) }

func portions(l *flowcontrolv1.PriorityLevelConfiguration) (shares, lend int32, borrow *int32) {
	or := func(p *int32, otherwise int32) int32 {
		if p == nil {
			return otherwise
		}
		return *p
	}
	switch {
	case l.Spec.Limited != nil:
		return or(l.Spec.Limited.NominalConcurrencyShares, 30), or(l.Spec.Limited.LendablePercent, 0), l.Spec.Limited.BorrowingLimitPercent
	case l.Spec.Exempt != nil:
		return or(l.Spec.Exempt.NominalConcurrencyShares, 0), or(l.Spec.Exempt.LendablePercent, 0), nil
	}
	return 0, 0, nil
}

// configure takes over what the object says. Who waits stays where it is: a queue
// beyond a smaller number of queues drains.
func (l *level) configure(obj *flowcontrolv1.PriorityLevelConfiguration, nominal, lower, upper int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := l.nominal != nominal || l.lower != lower || l.upper != upper
	l.uid, l.nominal, l.lower, l.upper = string(obj.UID), nominal, lower, upper
	l.exempt = obj.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	l.queues, l.hand, l.length, l.maxSeats = 0, 0, 0, 0
	if limited := obj.Spec.Limited; limited != nil && limited.LimitResponse.Queuing != nil {
		q := limited.LimitResponse.Queuing
		l.queues, l.hand, l.length = int(q.Queues), int(q.HandSize), int(q.QueueLengthLimit)
		l.maxSeats = int(max(1, min(math.Ceil(float64(nominal)*widest), float64(nominal/max(l.hand, 1)))))
	}
	if changed {
		l.limit = l.resting()
	}
	l.dispatch()
}

// resting is what a level has while nobody presses: half of what it would lend is
// kept back. The caller holds mu.
func (l *level) resting() int { return l.nominal - (l.nominal-l.lower)/2 }

// lending follows the pressure on levels until ctx ends. While nobody presses it
// sleeps.
func (o *Order) lending(ctx context.Context) error {
	for {
		select {
		case <-o.pressed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		o.begin()
		timer := time.NewTicker(lendEvery)
		for calm := 0; calm < calmAfter; {
			if o.lend() {
				calm = 0
			} else {
				calm++
			}
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			}
		}
		timer.Stop()
		o.settle()
	}
}

// begin forgets peaks from before the pressure.
func (o *Order) begin() {
	for _, l := range o.plan.Load().levels {
		l.mu.Lock()
		l.peak, l.smooth = l.held+l.waitingSeats, 0
		l.mu.Unlock()
	}
}

// settle gives every level what it has at rest.
func (o *Order) settle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.plan.Load().levels {
		l.mu.Lock()
		l.limit = l.resting()
		l.dispatch()
		l.mu.Unlock()
	}
}

// want is what one level brings into the division of seats.
type want struct {
	level                *level
	lower, upper, target float64
}

// lend divides the seats by what was asked for since the last time, and says
// whether any level asked for more than it has.
func (o *Order) lend() (pressed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.plan.Load()
	left, floor := float64(p.sum), 0.0
	var wants []want
	for _, l := range p.levels {
		l.mu.Lock()
		peak := l.peak
		l.peak = l.held + l.waitingSeats
		l.smooth = max(float64(peak), smoothing*l.smooth+(1-smoothing)*float64(peak))
		pressed = pressed || !l.exempt && (peak > l.limit || l.waiting > 0)
		w := want{level: l, lower: float64(max(l.lower, min(l.nominal, peak))), upper: float64(l.upper)}
		w.target = max(w.lower, l.smooth, 0.001)
		exempt, lower := l.exempt, l.lower
		l.mu.Unlock()
		if exempt {
			left -= float64(max(lower, peak))
			continue
		}
		floor += w.lower
		wants = append(wants, w)
	}
	slices.SortFunc(wants, func(a, b want) int { // sums of floats should not depend on a map's order
		if a.level.name < b.level.name {
			return -1
		}
		return 1
	})
	for i, seats := range divide(max(left, 0), floor, wants) {
		wants[i].level.resize(seats)
	}
	return pressed
}

// divide gives each the same multiple of its target, within its bounds, so that
// all together get what is left. When even the lower bounds are more than that,
// what is between them and the configured least is cut in proportion.
func divide(left, floor float64, wants []want) []int {
	out := make([]int, len(wants))
	if left <= floor {
		least := 0.0
		for _, w := range wants {
			least += float64(w.level.lower)
		}
		cut := 0.0
		if floor > least {
			cut = max(0, (left-least)/(floor-least))
		}
		for i, w := range wants {
			low := float64(w.level.lower)
			out[i] = int(math.Round(low + (w.lower-low)*cut))
		}
		return out
	}
	given := func(multiple float64) (sum float64) {
		for _, w := range wants {
			sum += min(max(w.target*multiple, w.lower), w.upper)
		}
		return sum
	}
	low, high := 0.0, 1.0
	for given(high) < left && high < 1e9 {
		high *= 2
	}
	for range 60 { // halves the interval below any rounding
		if mid := (low + high) / 2; given(mid) < left {
			low = mid
		} else {
			high = mid
		}
	}
	for i, w := range wants {
		out[i] = int(math.Round(min(max(w.target*high, w.lower), w.upper)))
	}
	return out
}
