package seeded

import "math/rand/v2"

// officeOdds is of how many lives one has each of those of officeLives.
const officeOdds = 7

// officeLives puts on the agenda what only few lives have, for controllers that have
// an office of their own: who signs, who attaches, who shares out, who migrates. They
// are drawn apart from the rest, so that what else a seed holds does not depend on them.
func (w *world) officeLives() {
	rest := w.rng
	defer func() { w.rng = rest }()
	w.rng = rand.New(rand.NewPCG(w.seed, 2))
	for _, begin := range []func(){w.disksLife, w.papersLife, w.robotLife, w.infoLife, w.migrationsLife, w.scribesLife} {
		if w.rng.IntN(officeOdds) == 0 {
			begin()
		}
	}
	if w.ranges {
		w.ghostsLife()
	}
	if w.old {
		w.elderLife()
	}
}
