package seeded

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// verdict is what becomes of something that waited at the gate.
type verdict int

const (
	// proceed: it happens.
	proceed verdict = iota
	// refuse: a request fails before anything was done.
	refuse
	// lose: a request is carried out, but its answer never comes.
	lose
	// crash: who asked dies at this moment, and nothing is done.
	crash
	// expire: a watch ends, and may not be resumed.
	expire
	// cut: a watch ends.
	cut
	// twice: an event is delivered two times.
	twice
)

var verdictNames = [...]string{"", " refused", " answer lost", " crash", " expired", " cut", " twice"}

// errGone is what a dead component's calls come to.
var errGone = errors.New("this component is dead")

// sort of thing that waits.
type act int

const (
	reading act = iota
	writing
	hearing
)

// ticket is one thing that waits to happen.
type ticket struct {
	who  string
	deed deed
	life *life
	pass chan verdict
	// rare is true for the first writes of a component.
	rare bool
	// lot is what the seed has drawn for it. It depends on nothing but the seed and
	// what waits, so that one more who waits changes nothing for the others.
	lot [4]uint64
	// held is set once the seed has decided when it may happen at the earliest.
	held  bool
	until time.Time
}

// gate lets one thing happen at a time.
type gate struct {
	mu      sync.Mutex
	waiting []*ticket
	seed    uint64
	numbers map[string]int
	// written counts the writes of each component.
	written map[string]int
	// deaf holds who hears nothing though all it asks is answered, and until when: its
	// picture grows stale. "controllers pods" is deaf to news of one kind alone,
	// "controllers mirrors pods" that component within the life.
	deaf map[string]time.Time
	// silent holds who can't reach the API server, and until when.
	silent map[string]time.Time
	// arrived tells the world that somebody waits.
	arrived chan struct{}
	open    bool
}

func newGate(seed uint64) *gate {
	return &gate{seed: seed, numbers: map[string]int{}, written: map[string]int{}, deaf: map[string]time.Time{},
		silent: map[string]time.Time{}, arrived: make(chan struct{}, 1)}
}

// enter waits until the seed lets it pass.
func (g *gate) enter(ctx context.Context, l *life, d deed) (verdict, error) {
	t := &ticket{who: l.who, deed: d, life: l, pass: make(chan verdict, 1)}
	g.mu.Lock()
	if g.open {
		g.mu.Unlock()
		return proceed, nil
	}
	id := t.who + " " + d.String()
	g.numbers[id]++
	t.draw(g.seed, id, g.numbers[id])
	if d.act == writing {
		who := component(t.who, d.by)
		g.written[who]++
		t.rare = g.written[who] <= rareWrites
	}
	g.waiting = append(g.waiting, t)
	g.mu.Unlock()
	select {
	case g.arrived <- struct{}{}:
	default:
	}
	select {
	case v := <-t.pass:
		return v, nil
	case <-ctx.Done():
		g.leave(t)
		return proceed, context.Cause(ctx)
	case <-l.gone:
		g.leave(t)
		return proceed, errGone
	}
}

func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, func(o *ticket) bool { return o == t })
}

// pick chooses among those that may pass now, and takes it out. It returns nil
// when there is none, and the time at which there will be one if that is known.
func (g *gate) pick(p trouble, now time.Time) (*ticket, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var chosen *ticket
	var next time.Time
	for _, t := range g.waiting {
		if !t.held {
			t.held, t.until = true, now.Add(p.delay(t))
		}
		until := t.until
		if s := g.silent[t.who]; s.After(until) {
			until = s
		}
		if t.deed.act == hearing {
			kind := t.deed.at.Resource.Resource
			until = latest(until, g.deaf[t.who], g.deaf[t.who+" "+kind], g.deaf[t.who+" "+t.deed.by+" "+kind])
		}
		switch {
		case !until.After(now):
			if chosen == nil || t.before(chosen) {
				chosen = t
			}
		case next.IsZero() || until.Before(next):
			next = until
		}
	}
	if chosen != nil {
		g.waiting = slices.DeleteFunc(g.waiting, func(o *ticket) bool { return o == chosen })
	}
	return chosen, next
}

func latest(all ...time.Time) (last time.Time) {
	for _, t := range all {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// isSilent says whether somebody can't reach the API server now.
func (g *gate) isSilent(who string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.silent[who].After(time.Now())
}

// release lets everybody pass from now on.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = true
	for _, t := range g.waiting {
		t.pass <- proceed
	}
	g.waiting = nil
}

// draw draws the lots of the number-th ticket of its name.
func (t *ticket) draw(seed uint64, id string, number int) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", seed, id, number)
	dice := rand.New(rand.NewPCG(h.Sum64(), seed))
	for i := range t.lot {
		t.lot[i] = dice.Uint64()
	}
}

// before says which of two goes first.
func (t *ticket) before(o *ticket) bool { return t.lot[0] < o.lot[0] }

func (t *ticket) String() string { return fmt.Sprintf("%s: %s", t.who, t.deed) }

// trouble is how much of it there is: chances are of 10,000.
type trouble struct {
	name string
	// slow is the chance that news of a change takes its time, at most lag.
	slow int
	lag  time.Duration
	// refuse, lose and crash are what may happen to a write.
	refuse, lose, crash int
	// expire, cut and twice are what may happen to an event.
	expire, cut, twice int
	// twoLeaders starts a second set of controllers beside the first for a while, and
	// sometimes a second scheduler.
	twoLeaders bool
	// servers lets the API server go and come back.
	servers bool
	// nodes lets nodes fall silent, lose power and come back.
	nodes bool
}

// profiles are the kinds of trouble; a seed has one of them.
var profiles = []trouble{
	{name: "calm"},
	{name: "slow news", slow: 1500, lag: 4 * time.Second},
	{name: "bad line", slow: 300, lag: time.Second, refuse: 150, lose: 150, expire: 30, cut: 60, twice: 100},
	{name: "crashes", slow: 300, lag: 2 * time.Second, lose: 50, crash: 60},
	{name: "two leaders", slow: 500, lag: 2 * time.Second, crash: 10, twoLeaders: true},
	{name: "bad servers", slow: 300, lag: time.Second, lose: 30, servers: true},
	{name: "bad nodes", slow: 100, lag: time.Second, cut: 20, nodes: true},
}

// delay is how long a ticket waits at least: only news may be slow.
func (p trouble) delay(t *ticket) time.Duration {
	if t.deed.act != hearing || t.lot[1]%10000 >= uint64(p.slow) {
		return 0
	}
	return time.Duration(t.lot[2] % uint64(p.lag))
}

// A component that hardly writes is hardly ever cut short by chance: its first writes
// are rareCrash times as dangerous as the others.
const (
	rareWrites = 4
	rareCrash  = 25
)

// judge decides what becomes of what passes.
func (p trouble) judge(t *ticket) verdict {
	type chance struct {
		of int
		is verdict
	}
	chances := []chance{{p.crash, crash}, {p.refuse, refuse}, {p.lose, lose}}
	if t.rare {
		chances[0].of *= rareCrash
	}
	switch t.deed.act {
	case reading:
		return proceed
	case hearing:
		chances = []chance{{p.expire, expire}, {p.cut, cut}, {p.twice, twice}}
	}
	at := int(t.lot[3] % 10000)
	for _, c := range chances {
		if at < c.of {
			return c.is
		}
		at -= c.of
	}
	return proceed
}
