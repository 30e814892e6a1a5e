package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// shelf is Claims out of two maps.
type shelf struct {
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
	asked   int
	far     error
}

func (s *shelf) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	s.asked++
	if c := s.claims[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (s *shelf) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if v := s.volumes[name]; v != nil {
		return v, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

func (s *shelf) Reachable(*corev1.PersistentVolume) error { return s.far }

// bind puts a claim with its volume, named pv-<name>, on the shelf.
func (s *shelf) bind(name string, source corev1.PersistentVolumeSource) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	uid := types.UID("uid-" + name)
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: source, ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: name, UID: uid}}}
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: uid},
		Spec:   corev1.PersistentVolumeClaimSpec{VolumeName: pv.Name},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	s.claims[name], s.volumes[pv.Name] = c, pv
	return c, pv
}

// claimBench is a bench with claims; it notes what pods are warned of.
func claimBench(t *testing.T) (*bench, *shelf, *[]string) {
	t.Helper()
	b := newBench(t)
	s := &shelf{claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}}
	var warned []string
	b.cfg.Claims = s
	b.cfg.Warn = func(_ *corev1.Pod, reason, message string) { warned = append(warned, reason+": "+message) }
	t.Cleanup(func() {
		if err := b.Remove("u2"); err != nil {
			t.Error(err)
		}
	})
	return b, s, &warned
}

func claimVolume(name, claim string, readOnly bool) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: readOnly}}}
}

func localSource(path string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}
}

func hostSource(path string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path}}
}

// failure is what Prepare says, which must fail.
func (b *bench) failure(t *testing.T, pod *corev1.Pod) error {
	t.Helper()
	_, err := b.Prepare(t.Context(), pod, downward.Facts{})
	if err == nil {
		t.Fatal("the volumes were prepared")
	}
	return err
}

func TestLocalVolume(t *testing.T) {
	b, s, _ := claimBench(t)
	disk := t.TempDir()
	_, pv := s.bind("data", localSource(disk))
	pv.Spec.MountOptions = []string{"noexec", "noatime"}
	pod := podWith(claimVolume("v", "data", false))
	dir := b.prepare(t, pod).Paths["v"]
	if want := b.Dir("u1") + "/volumes/kubernetes.io~local-volume/pv-data"; dir != want {
		t.Errorf("the volume is at %s, not %s", dir, want)
	}
	if err := os.WriteFile(dir+"/file", []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Flags&unix.ST_NOEXEC == 0 || st.Flags&unix.ST_NOATIME == 0 {
		t.Errorf("the mount has flags %x: %v", st.Flags, err)
	}
	asked := s.asked
	b.prepare(t, pod)
	if s.asked != asked {
		t.Error("a mounted volume's claim was asked for again")
	}
	// A later agent finds the mount, and makes no second one.
	later := New(b.cfg)
	if _, err := later.Prepare(t.Context(), pod, downward.Facts{}); err != nil {
		t.Fatal(err)
	}
	if mounts, err := mountsUnder(dir); err != nil || len(mounts) != 1 {
		t.Errorf("mounts %v: %v", mounts, err)
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.Dir("u1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pod's directory: %v", err)
	}
	if read(t, disk+"/file") != "kept" {
		t.Error("the volume's file is not what it was")
	}
}

func TestReadOnlyClaims(t *testing.T) {
	b, s, _ := claimBench(t)
	disk, host := t.TempDir(), t.TempDir()
	s.bind("disk", localSource(disk))
	_, pv := s.bind("host", hostSource(host))
	pv.Annotations = map[string]string{groupAnnotation: "1234"}
	set := b.prepare(t, podWith(claimVolume("d", "disk", true), claimVolume("h", "host", true)))
	if !set.ReadOnly["d"] || !set.ReadOnly["h"] || set.Paths["h"] != host || !slices.Equal(set.Groups, []int64{1234}) {
		t.Errorf("prepared %+v", set)
	}
	if err := os.WriteFile(set.Paths["d"]+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only claim: %v", err)
	}
}

// TestClaimsThatAreAboutToBeBound: one that names its volume is told from one that has
// none, and it takes all of a pod's to be so.
func TestClaimsThatAreAboutToBeBound(t *testing.T) {
	b, s, _ := claimBench(t)
	for _, name := range []string{"one", "two", "none"} {
		c, _ := s.bind(name, localSource(t.TempDir()))
		c.Status.Phase = corev1.ClaimPending
		if name == "none" {
			c.Spec.VolumeName = ""
		}
	}
	for want, names := range map[bool][]string{true: {"one", "two"}, false: {"one", "none"}} {
		err := b.failure(t, podWith(claimVolume("a", names[0], false), claimVolume("b", names[1], false)))
		var claims *ClaimError
		if !errors.As(err, &claims) || claims.Soon != want {
			t.Errorf("%v: %+v", names, err)
		}
	}
}

func TestClaimsThatCantBeUsed(t *testing.T) {
	b, s, _ := claimBench(t)
	disk := t.TempDir()
	block := corev1.PersistentVolumeBlock
	now := metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
		want   string
	}{
		"unbound": {func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			c.Status.Phase = corev1.ClaimPending
		}, "error processing PVC ns/unbound: PVC is not bound"},
		"leaving": {func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { c.DeletionTimestamp = &now }, "error processing PVC ns/leaving: PVC is being deleted"},
		"unnamed": {func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { c.Spec.VolumeName = "" }, "PVC has empty pvc.Spec.VolumeName"},
		"missing": {func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) { delete(s.claims, "missing") }, `failed to fetch PVC from API server: persistentvolumeclaims "missing" not found`},
		"lost":    {func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { delete(s.volumes, v.Name) }, "failed to fetch PV pv-lost from API server"},
		"free":    {func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Spec.ClaimRef = nil }, "it has a nil pv.Spec.ClaimRef"},
		"another": {func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "x" }, "ClaimRef.UID x does not point to claim.UID uid-another"},
	} {
		c.change(s.bind(name, localSource(disk)))
		err := b.failure(t, podWith(claimVolume("v", name, false)))
		var claims *ClaimError
		if !errors.As(err, &claims) || !strings.Contains(err.Error(), c.want) ||
			!strings.HasPrefix(err.Error(), "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, pv := s.bind("mounted", localSource(disk))
	pv.Spec.VolumeMode = &block
	pod := podWith(claimVolume("v", "mounted", false))
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	if err := b.failure(t, pod); !strings.Contains(err.Error(), "volume v has volumeMode Block, but is specified in volumeMounts") {
		t.Error(err)
	}
}

func TestVolumesThatCantBeMounted(t *testing.T) {
	b, s, _ := claimBench(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source  corev1.PersistentVolumeSource
		options []string
		want    string
	}{
		"nowhere": {localSource("/no/such/place"), nil, `MountVolume.NewMounter initialization failed for volume "pv-nowhere" : path "/no/such/place" does not exist`},
		"file":    {localSource(file), nil, "is neither a directory nor a block device"},
		"option":  {localSource(t.TempDir()), []string{"discard"}, `MountVolume.SetUp failed for volume "pv-option" : mount option "discard" is not supported`},
		"host":    {hostSource(t.TempDir()), []string{"ro"}, `MountVolume.MountOptionSupport check failed for volume "pv-host" : mount options are not supported for this volume type`},
		"csi":     {corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d.example"}}, nil, "driver name d.example not found in the list of registered CSI drivers"},
		"other":   {corev1.PersistentVolumeSource{}, nil, "no volume plugin matched"},
	} {
		_, pv := s.bind(name, c.source)
		pv.Spec.MountOptions = c.options
		if err := b.failure(t, podWith(claimVolume("v", name, false))); !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.bind("far", localSource(t.TempDir()))
	s.far = errors.New("no matching NodeSelectorTerms")
	want := `MountVolume.NodeAffinity check failed for volume "pv-far" : no matching NodeSelectorTerms`
	if err := b.failure(t, podWith(claimVolume("v", "far", false))); err.Error() != want {
		t.Error(err)
	}
}

func TestEphemeralClaimBelongsToThePod(t *testing.T) {
	b, s, _ := claimBench(t)
	claim, _ := s.bind("p-v", localSource(t.TempDir()))
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}})
	if err := b.failure(t, pod); !strings.Contains(err.Error(), "PVC ns/p-v was not created for pod ns/p (pod is not owner)") {
		t.Error(err)
	}
	yes := true
	claim.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "p", UID: "u1", Controller: &yes}}
	b.prepare(t, pod)
}

func group(t *testing.T, path string) (gid uint32, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Gid, info.Mode()
}

// The files of a local volume are given to the first pod's group: not those of a
// host path, not those that a link points at, and not while another pod has them.
func TestGroupOfLocalVolume(t *testing.T) {
	b, s, warned := claimBench(t)
	disk, host := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, err := range []error{
		os.Mkdir(disk+"/d", 0o700), os.WriteFile(disk+"/d/f", nil, 0o600), os.WriteFile(outside, nil, 0o600), os.Symlink(outside, disk+"/d/link"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.bind("disk", localSource(disk))
	s.bind("host", hostSource(host))
	first := podWith(claimVolume("d", "disk", false), claimVolume("h", "host", false))
	gid := int64(4321)
	first.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &gid}
	b.prepare(t, first)
	for path, want := range map[string]fs.FileMode{disk: 0o770 | fs.ModeSetgid | fs.ModeDir, disk + "/d": 0o770 | fs.ModeSetgid | fs.ModeDir, disk + "/d/f": 0o660} {
		if g, m := group(t, path); g != 4321 || m&want != want {
			t.Errorf("%s has group %d and mode %v", path, g, m)
		}
	}
	for _, path := range []string{outside, host} {
		if g, _ := group(t, path); g == 4321 {
			t.Errorf("%s was given away", path)
		}
	}
	if g, _ := group(t, disk+"/d/link"); g != 4321 {
		t.Errorf("the link has group %d", g)
	}
	second := podWith(claimVolume("d", "disk", false))
	other := int64(77)
	second.UID, second.Spec.SecurityContext = "u2", &corev1.PodSecurityContext{FSGroup: &other}
	b.prepare(t, second)
	if g, _ := group(t, disk); g != 4321 || len(*warned) != 1 ||
		(*warned)[0] != "AlreadyMountedVolume: The requested fsGroup is 77, but the volume pv-disk has GID 4321. The volume may not be shareable." {
		t.Errorf("group %d, warned of %q", g, *warned)
	}
	// Alone, it gets them; unless only the root matters, and that is right already.
	if err := errors.Join(b.Remove("u1"), b.Remove("u2"), os.Lchown(disk+"/d/f", -1, 5)); err != nil {
		t.Fatal(err)
	}
	lazy := corev1.FSGroupChangeOnRootMismatch
	first.Spec.SecurityContext.FSGroupChangePolicy = &lazy
	b.prepare(t, first)
	if g, _ := group(t, disk+"/d/f"); g != 5 {
		t.Errorf("files were gone through though the root was right: group %d", g)
	}
}

// What the host has mounted below a volume stays mounted when the pod goes, though
// the host's mounts propagate.
func TestRemoveLeavesTheHostsMounts(t *testing.T) {
	b := newBench(t)
	host := t.TempDir()
	t.Cleanup(func() {
		_ = unix.Unmount(host+"/part/sub", unix.MNT_DETACH)
		_ = unix.Unmount(host, unix.MNT_DETACH)
	})
	for _, err := range []error{
		unix.Mount("tmpfs", host, "tmpfs", 0, ""), unix.Mount("", host, "", unix.MS_SHARED, ""), os.MkdirAll(host+"/part/sub", 0o755),
		unix.Mount("tmpfs", host+"/part/sub", "tmpfs", 0, ""), os.WriteFile(host+"/part/sub/file", []byte("kept"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b.prepare(t, podWith())
	for range 2 { // the second replaces the first
		at, err := b.BindSubPath(SubPath{PodUID: "u1", Volume: "v", Container: "c", Root: host, Path: "part"})
		if err != nil {
			t.Fatal(err)
		}
		if read(t, at+"/sub/file") != "kept" || read(t, host+"/part/sub/file") != "kept" {
			t.Fatal("the mount below is not shown")
		}
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	if read(t, host+"/part/sub/file") != "kept" {
		t.Error("the host's mount is gone")
	}
}
