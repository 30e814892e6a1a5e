package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// usedWait is how long rmi waits for a cluster that may know who uses an image.
const usedWait = 3 * time.Second

// unused refuses to take the last name of an image that a container of sampan run is of,
// running or not, as docker does. Without a cluster nobody knows, and nothing is lost:
// what a container was made of stays with it.
func (s *Settings) unused(ctx context.Context, store *image.Store, img image.Image, ref string) error {
	byName := losesName(img, ref)
	if byName && len(img.Tags) > 1 || strings.Contains(ref, "@") && len(img.Tags) > 0 {
		return nil // it has another
	}
	ctx, cancel := context.WithTimeout(ctx, usedWait)
	defer cancel()
	server, err := s.connect()
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	node, err := server.localNode(ctx)
	if err != nil || node == nil {
		return nil //nolint:nilerr // it does not answer, or is elsewhere
	}
	pods, err := server.pods(ctx)
	if err != nil {
		return nil //nolint:nilerr // it does not answer
	}
	named := func(name string) bool {
		is, err := store.Get(name)
		return err == nil && is.ID == img.ID
	}
	for _, pod := range pods {
		if pod.Spec.NodeName != node.Name && pod.Spec.NodeName != "" || !isOf(pod, img, named) {
			continue
		}
		if byName {
			return fmt.Errorf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, shortID(idOf(pod)), shortID(img.ID))
		}
		return fmt.Errorf("conflict: unable to delete %s (must be forced) - image is being used by container %s", shortID(img.ID), shortID(idOf(pod)))
	}
	return nil
}

// losesName says whether a reference is one of an image's names, and not its ID.
func losesName(img image.Image, ref string) bool {
	full, err := image.Normalise(ref)
	return err == nil && slices.Contains(img.Tags, full)
}

// isOf says whether a container of sampan run is of an image. One that has run says so
// itself: its image's name may be another's by now.
func isOf(pod *corev1.Pod, img image.Image, named func(string) bool) bool {
	if pod.Labels[runLabel] == "" || len(pod.Spec.Containers) == 0 {
		return false
	}
	for _, st := range pod.Status.ContainerStatuses {
		if st.ImageID != "" {
			return st.ImageID == img.ID || strings.HasSuffix(st.ImageID, "@"+img.Manifest.String())
		}
	}
	return named(pod.Spec.Containers[0].Image)
}
