// Package fork answers "what would happen if?": it reads a live cluster through
// its API as it was at one revision, into a store in memory, and lets the real API
// server, scheduler and controllers act on that copy. The live cluster is only
// read; nothing of it changes, and what is asked on the fork has no way back.
//
// What a fork has not: containers, heartbeats and time. Pods that are put on a node
// run at once and are ready, and pods that are deleted are gone at once. Whoever
// judges by the clock or by heartbeats is left out (see absent), and so is whoever
// would call somebody outside: webhooks and aggregated servers. Kinds made of
// definitions are not copied. Jobs' pods run and do not end.
package fork
