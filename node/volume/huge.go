package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// mountHuge mounts huge pages at dir unless they are already: open to every user, as any
// emptyDir, and the pod's fsGroup's. Upstream's, without an fsGroup, are root's alone.
func mountHuge(pod *corev1.Pod, dir string, medium corev1.StorageMedium) error {
	size, err := pageSize(pod, medium)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	if yes, err := isMount(dir); err != nil || yes {
		return err
	}
	err = unix.Mount("nodev", dir, "hugetlbfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0777,pagesize="+strconv.FormatInt(size, 10))
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount huge pages at %q: the kernel has none: %w", dir, err)
	}
	if err != nil {
		return fmt.Errorf("mount huge pages of %d bytes at %q: %w", size, dir, err)
	}
	gid, ok := fsGroup(pod)
	if !ok {
		return nil
	}
	// The option mode knows no set-group-id bit.
	if err := errors.Join(os.Chown(dir, -1, int(gid)), os.Chmod(dir, 0o777|fs.ModeSetgid)); err != nil {
		return errors.Join(fmt.Errorf("give %q to group %d: %w", dir, gid, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// isHuge: the medium is huge pages, of some size or of the one that the pod requests.
func isHuge(medium corev1.StorageMedium) bool {
	return medium == corev1.StorageMediumHugePages || strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix))
}

// pageSize is the size of a volume's huge pages: the medium's, or that which the pod
// requests, and of which there may then be only one. The texts are upstream's.
func pageSize(pod *corev1.Pod, medium corev1.StorageMedium) (int64, error) {
	requested, err := requestedPages(pod)
	if err != nil {
		return 0, err
	}
	if medium != corev1.StorageMediumHugePages {
		size, err := resource.ParseQuantity(strings.TrimPrefix(string(medium), string(corev1.StorageMediumHugePagesPrefix)))
		if err != nil {
			return 0, fmt.Errorf("medium %s: %w", medium, err)
		}
		requested = slices.DeleteFunc(requested, func(have int64) bool { return have != size.Value() })
	}
	switch len(requested) {
	case 0:
		return 0, fmt.Errorf("medium %s: hugePages storage requested, but there is no resource request for huge pages", medium)
	case 1:
		return requested[0], nil
	}
	return 0, fmt.Errorf("medium: %s can't be used if container requests multiple huge page sizes", medium)
}

// requestedPages are the sizes of huge pages that a pod or a container of it requests.
func requestedPages(pod *corev1.Pod) ([]int64, error) {
	var lists []corev1.ResourceList
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		lists = append(lists, pod.Spec.Resources.Requests)
	}
	each(pod, func(c *corev1.Container) { lists = append(lists, c.Resources.Requests) })
	var sizes []int64
	for _, list := range lists {
		for name := range list {
			text, huge := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
			if !huge {
				continue
			}
			size, err := resource.ParseQuantity(text)
			if err != nil {
				return nil, fmt.Errorf("resource %s: %w", name, err)
			}
			if !slices.Contains(sizes, size.Value()) {
				sizes = append(sizes, size.Value())
			}
		}
	}
	return sizes, nil
}
