// Package seeded lives whole lives of a cluster in false time, each from a seed.
// The real API server over the store in memory, the real controllers, scheduler
// and node agents, and a container engine in memory run in one bubble. Whatever a
// component asks of the API server, and every event that a watch brings it, waits
// at a gate until the seed chooses it; so the seed chooses the order of all that
// happens, how long news takes, which watches break, which answers get lost,
// who crashes between two writes, who writes an object at the very moment when
// another one does, and when the API server goes and comes back over the same store. Some lives have two of them.
// Some lives last for years, most of which all sleep through. After every step the
// invariants of a cluster are checked: what was acknowledged is there, no node, quota,
// budget or bound is exceeded, no name runs twice, no two components write one field,
// no status lies for long, a watch brings what the store wrote down and nothing else.
// At the end, when all trouble is over, the cluster has to have become what was asked
// for.
//
// A seed that fails is lived again by its number. What waits draws its lot from the
// seed and its own name, so a life is repeated step by step; only what Go's
// scheduler decides within one component between two of its questions is out of
// the seed's hands. Faults put in on purpose (mutations) show that the seeds
// notice.
//
//	go test ./test/sim/seeded -seed 17 -v    # one seed again, with its trace
//	go test ./test/sim/seeded -seeds 2000    # more of them
package seeded
