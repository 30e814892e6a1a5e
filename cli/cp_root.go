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
// without its volumes as it left it, or as it will begin.
func (p Program) rootOf(ctx context.Context, s *Settings, at podName, write bool) (*os.File, error) {
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	pod, err := server.named(ctx, at.namespace, at.name)
	if err != nil {
		return nil, err
	}
	if !look(pod).running {
		return s.leftOf(pod, write)
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

// leftOf is what a container that does not run has, or will begin with: its image's files
// with its own changes, and without its volumes.
func (s *Settings) leftOf(pod *corev1.Pod, write bool) (*os.File, error) {
	key, ok := snapshotOf(pod)
	if !ok {
		return nil, fmt.Errorf("%s does not run, and no container of it is known to sampan's own engine", pod.Name)
	}
	if _, keeps := keptPrefix(pod); write && !keeps {
		return nil, fmt.Errorf("%s has ended, and begins anew without what is written into it: copy into a volume, or when it runs", pod.Name)
	}
	store, err := s.images()
	if err != nil {
		return nil, err
	}
	if isGated(pod) {
		if _, err := store.PrepareKept(key, pod.Spec.Containers[0].Image); err != nil {
			return nil, fmt.Errorf("files of %s: %w", pod.Name, err)
		}
	}
	f, err := build.OpenSnapshot(store, key, write)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not run, and its container is not on this machine, or no more", pod.Name)
	}
	return f, err
}
