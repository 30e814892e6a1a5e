package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// checkpointWait is how long an engine is waited for at least, as a kubelet waits.
const checkpointWait = 2 * time.Minute

// checkpoint is POST /checkpoint/{namespace}/{pod}/{container} (KEP-2008): it has the
// engine write the container's state, and answers with the file's name. The codes are the
// kubelet's: what is asked for is not there (404), also for a timeout that is no number,
// or it has not worked (500).
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	namespace, pod, name := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	c, err := s.cfg.Node.Container(r.Context(), namespace, pod, name, false)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	fail := func(why string) {
		http.Error(w, fmt.Sprintf("checkpointing of %v/%v/%v failed (%s)", namespace, pod, name, why), http.StatusInternalServerError)
	}
	timeout := int64(0)
	if given := r.URL.Query()["timeout"]; len(given) > 0 {
		if timeout, err = strconv.ParseInt(given[len(given)-1], 10, 64); err != nil {
			http.Error(w, "cannot parse value of timeout parameter", http.StatusNotFound)
			return
		}
	}
	if timeout < 0 {
		fail("CheckpointContainer requires the timeout value to be > 0")
		return
	}
	engine, ok := s.cfg.Engine.(cri.Checkpointer)
	if !ok {
		fail("the container engine does not use CRIU, which checkpoints need")
		return
	}
	if !c.Running || c.ID == "" {
		fail(fmt.Sprintf("container %v not found", name))
		return
	}
	if err := os.MkdirAll(s.cfg.Checkpoints, 0o700); err != nil {
		fail(err.Error())
		return
	}
	file := filepath.Join(s.cfg.Checkpoints, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", pod, namespace, name, time.Now().Format(time.RFC3339)))
	ctx, cancel := context.WithTimeout(r.Context(), max(checkpointWait, time.Duration(min(timeout, maxCheckpointWait))*time.Second))
	defer cancel()
	if _, err := engine.CheckpointContainer(ctx, &rt.CheckpointContainerRequest{ContainerId: c.ID, Location: file, Timeout: timeout}); err != nil {
		fail(cri.Message(err))
		return
	}
	s.json(w, map[string][]string{"items": {file}})
}

// maxCheckpointWait bounds, in seconds, what may be asked for: a day.
const maxCheckpointWait = 24 * 60 * 60
