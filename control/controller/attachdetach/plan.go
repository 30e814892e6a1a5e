package attachdetach

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Times that upstream gives.
const (
	// longestUnmount is how long a node that is unwell gets to unmount what nobody
	// needs there any more.
	longestUnmount = 6 * time.Minute
	// longestAttach is how long an attacher gets until pods are told that it takes long.
	longestAttach = 2 * time.Minute
)

// view is a node and its volumes, as plan sees them.
type view struct {
	name    string
	node    *corev1.Node // nil: it is gone
	now     time.Time
	wants   map[string]*want // by the attachment's name
	have    map[string]*storagev1.VolumeAttachment
	names   []named
	courses map[types.UID]*course
}

// want is a volume that pods mount.
type want struct {
	volume *corev1.PersistentVolume
	pods   []*corev1.Pod
	// elsewhere are other nodes that it is attached to.
	elsewhere []string
	// stale says that the mirror does not show yet what was done about the volume.
	stale bool
}

// named is an attachment with the name that nodes know its volume by.
type named struct {
	*storagev1.VolumeAttachment
	id corev1.UniqueVolumeName
}

// plan is what is to be done about a node's volumes, in this order.
type plan struct {
	// attached is what the node's status has to say; differs that it says otherwise.
	attached []corev1.AttachedVolume
	differs  bool
	detach   []*storagev1.VolumeAttachment
	attach   []*want
	// exclusive are wanted, but attached elsewhere.
	exclusive []*want
	// attaching are wanted and not there yet.
	attaching []waiting
	again     time.Duration
}

// waiting is a volume on its way, or just arrived.
type waiting struct {
	*want
	attachment *storagev1.VolumeAttachment
}

// plan is pure, but that it notes since when attachments are unwanted.
func (v *view) plan() *plan {
	p := &plan{}
	for _, a := range v.names {
		known := v.course(a.VolumeAttachment)
		w := v.wants[a.Name]
		stays := w != nil && a.DeletionTimestamp == nil
		switch {
		case stays:
			known.unwanted = time.Time{}
			p.attaching = append(p.attaching, waiting{w, a.VolumeAttachment})
			if !a.Status.Attached {
				p.soon(longestAttach)
			}
		case a.DeletionTimestamp != nil:
			continue // its attacher is at it
		default:
			stays = v.keeps(p, a, known)
		}
		if stays && a.Status.Attached {
			p.attached = append(p.attached, corev1.AttachedVolume{Name: a.id})
		}
	}
	if !v.controlled() {
		return &plan{}
	}
	v.missing(p)
	slices.SortFunc(p.attached, func(a, b corev1.AttachedVolume) int { return cmp.Compare(a.Name, b.Name) })
	p.differs = v.node != nil && !slices.Equal(p.attached, v.node.Status.VolumesAttached)
	return p
}

// missing decides about what is wanted and has no attachment.
func (v *view) missing(p *plan) {
	for name, w := range v.wants {
		if v.have[name] != nil {
			continue
		}
		switch {
		case w.stale:
			p.soon(catchUp)
		case len(w.elsewhere) > 0 && !shared(w.volume):
			p.exclusive = append(p.exclusive, w)
		default:
			p.attach = append(p.attach, w)
		}
	}
	byName := func(a, b *want) int { return cmp.Compare(a.volume.Name, b.volume.Name) }
	slices.SortFunc(p.attach, byName)
	slices.SortFunc(p.exclusive, byName)
}

// keeps says whether an attachment that nobody wants has to stay for now.
func (v *view) keeps(p *plan, a named, known *course) bool {
	if known.unwanted.IsZero() {
		known.unwanted = v.now
	}
	if v.node != nil && slices.Contains(v.node.Status.VolumesInUse, a.id) && !outOfService(v.node) {
		left := longestUnmount - v.now.Sub(known.unwanted)
		if well(v.node) || left > 0 {
			p.soon(max(left, time.Second))
			return true
		}
	}
	p.detach = append(p.detach, a.VolumeAttachment)
	return false
}

// controlled says whether the node's volumes are this controller's affair. Those of a
// node that is gone are.
func (v *view) controlled() bool { return v.node == nil || v.node.Annotations[managed] == "true" }

func (v *view) course(a *storagev1.VolumeAttachment) *course {
	if v.courses[a.UID] == nil {
		v.courses[a.UID] = &course{node: v.name}
	}
	return v.courses[a.UID]
}

// soon asks for another look.
func (p *plan) soon(d time.Duration) {
	if p.again == 0 || d < p.again {
		p.again = d
	}
}

// claimsOf names the claims that a pod mounts, as namespace/name.
func claimsOf(pod *corev1.Pod) []string {
	var all []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			all = append(all, pod.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			all = append(all, pod.Namespace+"/"+pod.Name+"-"+v.Name)
		}
	}
	return all
}

// over says whether a pod has ceased to mount anything: it has ended, or is being
// deleted and none of its containers runs.
func over(pod *corev1.Pod) bool {
	s := &pod.Status
	if s.Phase == corev1.PodFailed || s.Phase == corev1.PodSucceeded {
		return true
	}
	running := func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil && c.State.Waiting == nil }
	return pod.DeletionTimestamp != nil && !slices.ContainsFunc(s.InitContainerStatuses, running) &&
		!slices.ContainsFunc(s.ContainerStatuses, running) && !slices.ContainsFunc(s.EphemeralContainerStatuses, running)
}

// attaches says whether a driver's volumes have to be attached: unless it says no.
func attaches(d *storagev1.CSIDriver) bool {
	return d.Spec.AttachRequired == nil || *d.Spec.AttachRequired
}

// shared says whether a volume may be attached to several nodes; one that does not
// tell its modes may: its driver will know.
func shared(pv *corev1.PersistentVolume) bool {
	modes := pv.Spec.AccessModes
	return len(modes) == 0 || slices.Contains(modes, corev1.ReadWriteMany) || slices.Contains(modes, corev1.ReadOnlyMany)
}

func well(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func outOfService(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// nameOf is upstream's name of a volume's attachment to a node, by which attachers and
// agents find it.
func nameOf(csi *corev1.CSIPersistentVolumeSource, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(csi.VolumeHandle+csi.Driver+node)))
}

// volumeOf names an attachment's volume; "" when it is part of a pod.
func volumeOf(a *storagev1.VolumeAttachment) string {
	if a.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *a.Spec.Source.PersistentVolumeName
}

// idOf is the name that nodes know a volume by.
func idOf(driver, handle string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName(csiPrefix + driver + "^" + handle)
}

const csiPrefix = "kubernetes.io/csi/"

// identify gives the name that nodes know an attachment's volume by; false when
// somebody else has made the attachment. When its volume is gone the node may know
// its name; if it does not, the name is "".
func identify(a *storagev1.VolumeAttachment, pv *corev1.PersistentVolume, node *corev1.Node) (corev1.UniqueVolumeName, bool) {
	if pv != nil && pv.Spec.CSI != nil {
		return idOf(pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle), a.Name == nameOf(pv.Spec.CSI, a.Spec.NodeName)
	}
	if node == nil {
		return "", strings.HasPrefix(a.Name, "csi-")
	}
	known := slices.Clone(node.Status.VolumesInUse)
	for _, v := range node.Status.VolumesAttached {
		known = append(known, v.Name)
	}
	for _, id := range known {
		handle, ok := strings.CutPrefix(string(id), csiPrefix+a.Spec.Attacher+"^")
		csi := &corev1.CSIPersistentVolumeSource{Driver: a.Spec.Attacher, VolumeHandle: handle}
		if ok && a.Name == nameOf(csi, a.Spec.NodeName) {
			return id, true
		}
	}
	return "", strings.HasPrefix(a.Name, "csi-")
}
