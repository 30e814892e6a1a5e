package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

func huge(medium corev1.StorageMedium) corev1.Volume {
	return corev1.Volume{Name: "huge", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
}

// TestPageSize: which huge pages a volume has.
func TestPageSize(t *testing.T) {
	const none, several = "hugePages storage requested, but there is no resource request", "can't be used if container requests multiple huge page sizes"
	for _, c := range []struct {
		medium   corev1.StorageMedium
		requests string
		want     int64
		refusal  string
	}{
		{"HugePages", "hugepages-2Mi", 2 << 20, ""},
		{"HugePages", "cpu,hugepages-1Gi", 1 << 30, ""},
		{"HugePages", "cpu", 0, none},
		{"HugePages", "hugepages-2Mi,hugepages-1Gi", 0, several},
		{"HugePages-2Mi", "hugepages-2Mi,hugepages-1Gi", 2 << 20, ""},
		{"HugePages-2Mi", "hugepages-1Gi", 0, none},
		{"HugePages-many", "hugepages-1Gi", 0, "medium HugePages-many: quantities must match"},
	} {
		pod := podWith(huge(c.medium))
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{}
		for name := range strings.SplitSeq(c.requests, ",") {
			pod.Spec.Containers[0].Resources.Requests[corev1.ResourceName(name)] = resource.MustParse("1")
		}
		got, err := pageSize(pod, c.medium)
		if got != c.want || (err != nil) != (c.refusal != "") || (err != nil && !strings.Contains(err.Error(), c.refusal)) {
			t.Errorf("%s, requests %s: %d, %v", c.medium, c.requests, got, err)
		}
	}
}

// TestHugePages: they are mounted once, and gone with the pod. The kernel makes such a
// file system also where it has no pages to give.
func TestHugePages(t *testing.T) {
	b := newBench(t)
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skip("this machine has no huge pages of 2 MiB")
	}
	group := int64(1234)
	pod := podWith(huge("HugePages"))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")}
	for range 2 {
		if _, err := b.Prepare(t.Context(), pod, downward.Facts{}); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(b.Dir(string(pod.UID)), "volumes", "kubernetes.io~empty-dir", "huge")
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.HUGETLBFS_MAGIC || fs.Bsize != 2<<20 || st.Mode&0o7777 != 0o2777 || st.Gid != uint32(group) {
		t.Errorf("type %x, pages of %d, mode %o, group %d", fs.Type, fs.Bsize, st.Mode&0o7777, st.Gid)
	}
	if err := b.Remove(string(pod.UID)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}
