package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/build"
)

// rootOf opens the root directory of a pod's container: as its processes see it, or
// once they have ended as they left it, to be read alone.
func (p Program) rootOf(ctx context.Context, s *Settings, at podName, write bool) (*os.File, error) {
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	pod, err := server.named(ctx, at.namespace, at.name)
	if err != nil {
		return nil, err
	}
	if !look(pod).running && !isGated(pod) {
		if write {
			return nil, fmt.Errorf("%s has ended, and begins anew without what is written into it: copy into a volume, or when it runs", pod.Name)
		}
		return s.leftOf(pod)
	}
	pid, err := p.firstProcess(ctx, s, pod)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("root of %s: %w", pod.Name, err)
	}
	return f, nil
}

// leftOf is what a container that does not run has left: its image's files with its own
// changes, and without its volumes.
func (s *Settings) leftOf(pod *corev1.Pod) (*os.File, error) {
	id, ok := ownContainer(pod)
	if !ok {
		return nil, fmt.Errorf("%s does not run, and no container of it is known to sampan's own engine", pod.Name)
	}
	store, err := s.images()
	if err != nil {
		return nil, err
	}
	f, err := build.OpenSnapshot(store, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not run, and its container is not on this machine, or no more", pod.Name)
	}
	return f, err
}
