package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/node/build"
)

// rawProgress prints a JSON object a line for each thing that a build tells, in the
// shape of BuildKit's SolveStatus, for programs.
type rawProgress struct {
	out   *json.Encoder
	began map[digest.Digest]time.Time
}

func newRawProgress(out io.Writer) *rawProgress {
	return &rawProgress{out: json.NewEncoder(out), began: map[digest.Digest]time.Time{}}
}

// rawStatus is one line.
type rawStatus struct {
	Vertexes []rawVertex  `json:"vertexes,omitempty"`
	Logs     []rawLog     `json:"logs,omitempty"`
	Warnings []rawWarning `json:"warnings,omitempty"`
}

type rawVertex struct {
	Digest    digest.Digest `json:"digest"`
	Name      string        `json:"name"`
	Started   *time.Time    `json:"started,omitempty"`
	Completed *time.Time    `json:"completed,omitempty"`
	Cached    bool          `json:"cached,omitempty"`
}

// rawLog is what a RUN printed; bytes become base64.
type rawLog struct {
	Vertex    digest.Digest `json:"vertex"`
	Stream    int           `json:"stream"`
	Data      []byte        `json:"data"`
	Timestamp time.Time     `json:"timestamp"`
}

type rawWarning struct {
	Vertex digest.Digest `json:"vertex"`
	Level  int           `json:"level"`
	Short  []byte        `json:"short"`
	Line   int           `json:"line,omitempty"`
}

func (r *rawProgress) event(e build.Event) {
	name := strings.TrimSpace(fmt.Sprintf("%s %d/%d", e.Name, e.Step, e.Steps))
	id := digest.FromString(fmt.Sprintf("%d %d %s", e.Stage, e.Step, e.Text))
	now := time.Now().UTC()
	if len(e.Output) > 0 {
		_ = r.out.Encode(rawStatus{Logs: []rawLog{{Vertex: id, Stream: 1, Data: e.Output, Timestamp: now}}}) // nobody reads: nobody to tell
		return
	}
	v := rawVertex{Digest: id, Name: "[" + name + "] " + e.Text, Cached: e.Cached}
	if !e.Done {
		r.began[id] = now
	} else {
		v.Completed = &now
	}
	began := r.began[id]
	v.Started = &began
	_ = r.out.Encode(rawStatus{Vertexes: []rawVertex{v}}) // as above
}

func (r *rawProgress) warning(w build.Warning) {
	text := w.Text
	if w.Rule != "" {
		text = w.Rule + ": " + text
	}
	_ = r.out.Encode(rawStatus{Warnings: []rawWarning{{Level: 1, Short: []byte(text), Line: w.Line}}}) // as above
}
