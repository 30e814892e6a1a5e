// Package profiles serves what the Go runtime knows of this process below
// /debug/pprof/, as upstream's API server and kubelet do by default: where processor
// time goes, what the heap holds, what goroutines wait for. "go tool pprof" reads the
// answers. Whoever serves it must have asked who may see it.
package profiles

import (
	"net/http"
	"net/http/pprof"
)

// Path is below which the profiles are.
const Path = "/debug/pprof/"

// Handler serves Path, and all below it. It works while any number of others do, but
// for the processor profile and the trace: of each there is one at a time in a
// process, and the second is refused with 500.
func Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc(Path, pprof.Index)
	m.HandleFunc(Path+"cmdline", pprof.Cmdline)
	m.HandleFunc(Path+"profile", pprof.Profile)
	m.HandleFunc(Path+"symbol", pprof.Symbol)
	m.HandleFunc(Path+"trace", pprof.Trace)
	return m
}
