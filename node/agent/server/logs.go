package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/logfile"
	"github.com/sampan-dev/sampan/node/agent/nodelog"
)

// systemLogs answers /logs/: the files of a directory of the node's, nothing that links
// lead to outside of it, and questions.
func (s *Server) systemLogs(w http.ResponseWriter, r *http.Request) {
	if s.cfg.SystemLogs == "" {
		http.Error(w, "logs endpoint is disabled.", http.StatusMethodNotAllowed)
		return
	}
	logs := nodelog.Logs{Dir: s.cfg.SystemLogs}
	answer := logs.Files
	if s.cfg.Questions {
		answer = logs.ServeHTTP
	}
	http.StripPrefix("/logs/", http.HandlerFunc(answer)).ServeHTTP(w, r)
}

// logs answers /containerLogs: the options are those of PodLogOptions.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	previous := yes(r.URL.Query(), "previous")
	c, err := s.cfg.Node.Container(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c.Running && c.StdinOnce {
		// Whoever attaches next has read the log, as kubectl run has since v1.37, and need
		// not be given the same again. An engine that does without keeps nothing.
		_, _ = s.cfg.Engine.ReopenContainerLog(r.Context(), &rt.ReopenContainerLogRequest{ContainerId: c.ID})
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flushed{w: w, now: opts.Follow}
	w.WriteHeader(http.StatusOK)
	out.flush()
	err = logfile.Read(r.Context(), logfile.Log{Path: c.LogPath, ID: c.ID, Running: c.Running, Engine: s.cfg.Engine}, opts, out)
	if err != nil && r.Context().Err() == nil {
		fmt.Fprintf(w, "failed to read the container's log: %v\n", err)
	}
}

func logOptions(q url.Values) (logfile.Options, error) {
	o := logfile.Options{Follow: yes(q, "follow"), Timestamps: yes(q, "timestamps"), Tail: -1, Limit: -1}
	for name, field := range map[string]*int64{"tailLines": &o.Tail, "limitBytes": &o.Limit} {
		if err := number(q, name, field); err != nil {
			return o, err
		}
	}
	var seconds int64 = -1
	if err := number(q, "sinceSeconds", &seconds); err != nil {
		return o, err
	}
	if seconds >= 0 {
		o.Since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return o, fmt.Errorf("invalid sinceTime %q: %w", text, err)
		}
		o.Since = t
	}
	switch q.Get("stream") {
	case "Stdout":
		o.Stream = "stdout"
	case "Stderr":
		o.Stream = "stderr"
	}
	return o, nil
}

func number(q url.Values, name string, to *int64) error {
	text := q.Get(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("invalid %s %q: must be a whole number, 0 or more", name, text)
	}
	*to = n
	return nil
}

// flushed sends every piece at once while somebody follows.
type flushed struct {
	w   http.ResponseWriter
	now bool
}

func (f *flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if f.now {
		f.flush()
	}
	return n, err
}

func (f *flushed) flush() { _ = http.NewResponseController(f.w).Flush() }
