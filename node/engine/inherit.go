package engine

import (
	"fmt"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/image"
)

// keptPrefix begins the keys of the snapshots in which a pod keeps files from one
// container to the next; empty for a pod that has not asked for that.
func keptPrefix(s *rt.PodSandboxConfig) string {
	word := s.GetAnnotations()[cri.FilesAnnotation]
	if word == "" {
		return ""
	}
	return image.KeptPrefix(s.GetMetadata().GetNamespace(), s.GetMetadata().GetName(), word)
}

// keptKey is the key of that of a container.
func keptKey(s *rt.PodSandboxConfig, c *rt.ContainerConfig) string {
	prefix := keptPrefix(s)
	if prefix == "" {
		return ""
	}
	return prefix + c.GetMetadata().GetName()
}

// ownSnapshot makes the snapshot that a container writes to, or finds the one that its
// predecessor has left, which must have ended: two overlays on one directory are nobody's.
func (e *Engine) ownSnapshot(s *sandbox, c *ctr, img image.Image) (image.Rootfs, error) {
	if c.Kept == "" {
		return e.images.Prepare(c.ID, img.ID)
	}
	defer e.busy.Lock(keptPrefix(s.Config))()
	others, making := e.records.sharing(c)
	if making {
		return image.Rootfs{}, precondition("another container with the same files is being made")
	}
	for _, other := range others {
		st, err := e.runtime.Status(other.ID)
		if err == nil && st.State != container.Exited {
			return image.Rootfs{}, precondition("container %q has the files, and has not ended", other.ID)
		}
	}
	return e.images.PrepareKept(c.Kept, img.ID)
}

// releaseKept gives up what a sandbox's pod keeps, when no other sandbox is of that pod.
// What is held waits for a pod of that name that comes.
func (e *Engine) releaseKept(s *sandbox) error {
	prefix := keptPrefix(s.Config)
	if prefix == "" {
		return nil
	}
	defer e.busy.Lock(prefix)()
	others := e.records.sandboxesThat(prefix, func(o *sandbox) bool { return o.ID != s.ID })
	if len(others) > 0 {
		return nil
	}
	if err := e.images.ReleaseKept(prefix); err != nil {
		return fmt.Errorf("release what pod %q keeps: %w", podName(s.Config), err)
	}
	return nil
}
