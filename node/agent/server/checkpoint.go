package server

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Checkpointer is an engine that can write a container's state to a file.
type Checkpointer interface {
	CheckpointContainer(context.Context, *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error)
}

// checkpoint is POST /checkpoint/{namespace}/{pod}/{container}: it has the engine
// write the container's state and answers with the file's name.
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	namespace, pod, name := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	c, err := s.cfg.Node.Container(r.Context(), namespace, pod, name, false)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	timeout := int64(0)
	if text := r.URL.Query().Get("timeout"); text != "" {
		if timeout, err = strconv.ParseInt(text, 10, 64); err != nil || timeout < 0 {
			http.Error(w, "cannot parse value of timeout parameter", http.StatusBadRequest)
			return
		}
	}
	fail := func(code int, why string) {
		http.Error(w, fmt.Sprintf("checkpointing of %v/%v/%v failed (%s)", namespace, pod, name, why), code)
	}
	engine, ok := s.cfg.Engine.(Checkpointer)
	if !ok {
		fail(http.StatusNotFound, "the container engine can't checkpoint containers")
		return
	}
	if !c.Running || c.ID == "" {
		fail(http.StatusInternalServerError, "the container isn't running")
		return
	}
	file := filepath.Join(s.cfg.Checkpoints, fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", pod, namespace, name, time.Now().Format(time.RFC3339)))
	if _, err := engine.CheckpointContainer(r.Context(), &rt.CheckpointContainerRequest{ContainerId: c.ID, Location: file, Timeout: timeout}); err != nil {
		code := http.StatusInternalServerError
		if status.Code(err) == codes.Unimplemented {
			code = http.StatusNotFound
		}
		fail(code, cri.Message(err))
		return
	}
	s.json(w, map[string][]string{"items": {file}})
}
