package match

import (
	"context"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// Rounds is the memory of one write's mutation: everything is asked once, and
// once more if a webhook or policy changed the object after others had seen it.
// It is for one goroutine.
type Rounds struct {
	again, second bool
	touched       bool
	parts         map[string]*Round
}

// Round is what one part of the chain (webhooks, or policies) remembers.
type Round struct {
	rounds *Rounds
	left   runtime.Object // the object as this part left it
	called map[string]bool
	recall map[string]bool
}

type roundsKey struct{}

// WithRounds returns a context that carries the memory.
func WithRounds(ctx context.Context) (context.Context, *Rounds) {
	r := &Rounds{}
	return context.WithValue(ctx, roundsKey{}, r), r
}

// Again says that a second round is due, and begins it.
func (r *Rounds) Again() bool {
	if !r.again || r.second {
		return false
	}
	r.second = true
	return true
}

// Touched says that somebody's rule has changed the object.
func (r *Rounds) Touched() bool { return r.touched }

// Enter returns the memory of a part of the chain. If others changed obj since the
// part last saw it, all that it called and may call again is to be called again.
// Leave must be called at the end.
func Enter(ctx context.Context, part string, obj runtime.Object) *Round {
	rounds, ok := ctx.Value(roundsKey{}).(*Rounds)
	if !ok {
		rounds = &Rounds{}
	}
	if rounds.parts == nil {
		rounds.parts = map[string]*Round{}
	}
	r, ok := rounds.parts[part]
	if !ok {
		r = &Round{rounds: rounds, called: map[string]bool{}, recall: map[string]bool{}}
		rounds.parts[part] = r
	}
	if rounds.second && !apiequality.Semantic.DeepEqual(r.left, obj) {
		r.recallAll()
	}
	return r
}

// Leave remembers the object.
func (r *Round) Leave(obj runtime.Object) {
	if obj != nil {
		r.left = obj.DeepCopyObject()
	}
}

// Number is the round: 0, or 1 when everything is asked once more.
func (r *Round) Number() int {
	if r.rounds.second {
		return 1
	}
	return 0
}

// Skip says that key is not to be called in this round.
func (r *Round) Skip(key string) bool { return r.rounds.second && !r.recall[key] }

// Changed says that the object is another: whoever was called before and may be
// called again is.
func (r *Round) Changed() {
	r.recallAll()
	r.rounds.again, r.rounds.touched = true, true
}

// Called says that key has been called and may be called again.
func (r *Round) Called(key string) { r.called[key] = true }

func (r *Round) recallAll() {
	for key := range r.called {
		r.recall[key] = true
	}
	clear(r.called)
}
