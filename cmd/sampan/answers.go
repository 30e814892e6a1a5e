package main

import (
	"encoding/json"
	"net/http"
	"sync/atomic"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/exchange"
)

// answers serves the records that "sampan why", "sampan trace" and "sampan
// simulate" read.
type answers struct {
	timeline *timeline.Recorder
	placing  explain.Placing
	// decisions are there once the scheduler is.
	decisions atomic.Pointer[scheduler.Records]
}

func (a *answers) handlers() map[string]http.Handler {
	return map[string]http.Handler{
		explain.DecisionPath: http.HandlerFunc(a.decision),
		explain.TimelinePath: http.HandlerFunc(a.marks),
		explain.PlacingPath:  http.HandlerFunc(a.howPlaced),
	}
}

// extra are the paths that the API server serves beside its own.
func (c *cluster) extra(records *answers) map[string]http.Handler {
	all := records.handlers()
	all[exchange.OriginPath] = &c.origin
	all[cli.BackupPath] = http.HandlerFunc(c.serveBackup)
	return all
}

func (a *answers) decision(w http.ResponseWriter, r *http.Request) {
	records := a.decisions.Load()
	if records == nil {
		http.Error(w, "the scheduler has not started", http.StatusServiceUnavailable)
		return
	}
	query := r.URL.Query()
	d, ok := records.Of(query.Get("namespace"), query.Get("name"))
	if !ok {
		http.Error(w, "no decision about that pod", http.StatusNotFound)
		return
	}
	answer(w, d)
}

func (a *answers) howPlaced(w http.ResponseWriter, _ *http.Request) { answer(w, a.placing) }

func (a *answers) marks(w http.ResponseWriter, r *http.Request) {
	marks := a.timeline.Of(r.URL.Query().Get("uid"))
	if marks == nil {
		http.Error(w, "nothing is known of that object", http.StatusNotFound)
		return
	}
	answer(w, marks)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone: nobody to tell
}
