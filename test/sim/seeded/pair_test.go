package seeded

import (
	"context"
	"hash/fnv"
	"sync/atomic"

	"github.com/sampan-dev/sampan/control/apiserver"
)

// pairOdds is of how many lives one has two API servers over its store, as a cluster
// has that is to outlive a machine.
const pairOdds = 6

// pair is the second of two API servers. About half of all who ask do so there as long
// as it is there, and of the first while it is away; so what a component is told of its
// writes and what it sees of them come from different servers. The witnesses, who follow
// every write, stay with the first.
type pair struct {
	there  bool // this life has one
	server atomic.Pointer[apiserver.Server]
	end    func()
}

// join starts the second server.
func (w *world) join() {
	ctx, stop := context.WithCancel(context.Background())
	server, ended := w.newServer(ctx)
	w.pair.end = func() {
		stop()
		<-ended
	}
	w.pair.server.Store(server)
}

// part ends the second server, if it is there.
func (p *pair) part() {
	if p.server.Swap(nil) != nil {
		p.end()
	}
}

// serverOf is the API server that somebody asks, nil while there is none.
func (w *world) serverOf(who string) *apiserver.Server {
	if second := w.pair.server.Load(); second != nil && w.elsewhere(who) {
		return second
	}
	return w.server.Load()
}

// elsewhere says whether somebody asks the second server.
func (w *world) elsewhere(who string) bool {
	if who == administrator {
		return false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(who))
	return (h.Sum64()^w.seed)&1 == 1
}

// goes ends a server, of two the second, and comesBack starts it again.
func (w *world) goes() {
	if w.pair.there {
		w.pair.part()
		return
	}
	w.halt()
}

func (w *world) comesBack() {
	if w.pair.there {
		w.join()
		return
	}
	w.serve()
}
