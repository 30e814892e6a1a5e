package seeded

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

const (
	// disk is how the volumes begin that have to be attached, and their claims; diskUser
	// how the pods begin that mount them.
	disk, diskUser = "disk", "user"
	// diskDriver attaches them.
	diskDriver = "disk.test"
	// attacherLooks is how often its attacher does.
	attacherLooks = 4 * time.Second
)

// disksLife makes volumes that have to be attached and are used now on one node, now on
// another; some of them are deleted while they are in use.
func (w *world) disksLife() {
	for i := range 2 {
		name := fmt.Sprint(disk, i)
		w.ask("create "+name, func() error { return errors.Join(w.disk(name), w.diskClaim(name)) })
		node := w.nodes[w.rng.IntN(len(w.nodes))].name
		w.later(5*time.Second, "admin", func() { w.ask("use "+name, func() error { return w.useDisk(name, node) }) })
		for range 1 + w.rng.IntN(3) {
			at, soon, to := w.within(busy*3/4), w.within(20*time.Second), w.nodes[w.rng.IntN(len(w.nodes))].name
			w.later(at, "admin", func() { w.ask("stop using "+name, func() error { return w.leaveDisk(name) }) })
			w.later(at+soon, "admin", func() { w.ask("use "+name+" on "+to, func() error { return w.useDisk(name, to) }) })
		}
		if w.rng.IntN(2) == 0 {
			continue
		}
		w.sometime("delete volume "+name, func() error {
			return client.PersistentVolumes.Delete(w.t.Context(), w.admin, "", name, metav1.DeleteOptions{})
		})
		w.sometime("delete claim "+name, func() error {
			w.doomed = append(w.doomed, name)
			return client.PersistentVolumeClaims.Delete(w.t.Context(), w.admin, "free", name, metav1.DeleteOptions{})
		})
	}
	w.attach()
}

func (w *world) disk(name string) error {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: diskDriver, VolumeHandle: name}},
	}}
	_, err := client.PersistentVolumes.Create(w.t.Context(), w.admin, v)
	return err
}

func (w *world) diskClaim(name string) error {
	none := ""
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &none, VolumeName: name,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	_, err := client.PersistentVolumeClaims.Create(w.t.Context(), w.admin, c)
	return err
}

// useDisk makes the pod that mounts a disk, unless its claim is to go.
func (w *world) useDisk(name, node string) error {
	if slices.Contains(w.doomed, name) {
		return errors.New("it is to go")
	}
	no, grace := false, int64(1)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: diskUser + name}, Spec: corev1.PodSpec{
		NodeName: node, AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "c", Image: "app", ImagePullPolicy: corev1.PullIfNotPresent, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}},
	}}
	_, err := client.Pods.Create(w.t.Context(), w.admin, p)
	return err
}

func (w *world) leaveDisk(name string) error {
	return client.Pods.Delete(w.t.Context(), w.admin, "free", diskUser+name, metav1.DeleteOptions{})
}

// attach is the driver's attacher: it looks now and then, as long as the life lasts, and
// answers every attachment.
func (w *world) attach() {
	for _, a := range list(w.oracle, client.VolumeAttachments) {
		a = a.DeepCopy()
		switch {
		case a.DeletionTimestamp != nil:
			a.Finalizers = nil
			_, _ = client.VolumeAttachments.Update(w.t.Context(), w.admin, a) // the next look
		case len(a.Finalizers) == 0:
			a.Finalizers = []string{"external-attacher/disk-test"}
			_, _ = client.VolumeAttachments.Update(w.t.Context(), w.admin, a)
		case !a.Status.Attached:
			a.Status.Attached = true
			_, _ = client.VolumeAttachments.UpdateStatus(w.t.Context(), w.admin, a)
		}
	}
	w.later(attacherLooks, "the attacher looks", w.attach)
}

// checkDisks: a disk is attached to one node at a time. Of two leaders one may not have
// heard what the other has attached: there the driver has to refuse.
func (o *oracle) checkDisks() {
	if o.w.trouble.twoLeaders && !o.w.over {
		return
	}
	where := map[string]string{}
	for _, a := range list(o, client.VolumeAttachments) {
		v := *a.Spec.Source.PersistentVolumeName
		if other := where[v]; other != "" {
			o.w.fail("volume %s is attached to %s and to %s", v, other, a.Spec.NodeName)
		}
		where[v] = a.Spec.NodeName
	}
}

// lost looks at what has gone: no volume goes while it is bound, and no claim while a
// pod uses it that was there before.
func (o *oracle) lost(obj client.Object) {
	switch obj := obj.(type) {
	case *corev1.PersistentVolume:
		if obj.Status.Phase == corev1.VolumeBound {
			o.w.fail("volume %s has gone though it is bound to %s/%s", obj.Name, obj.Spec.ClaimRef.Namespace, obj.Spec.ClaimRef.Name)
		}
	case *corev1.PersistentVolumeClaim:
		for _, other := range o.objects[client.Pods.Resource] {
			p := other.(*corev1.Pod)
			before := obj.DeletionTimestamp != nil && p.CreationTimestamp.Before(obj.DeletionTimestamp)
			if before && p.Namespace == obj.Namespace && p.Spec.NodeName != "" && !finished(p) && mounts(p, obj.Name) {
				o.w.fail("claim %s has gone though pod %s uses it", key(obj), key(p))
			}
		}
	}
}

func mounts(p *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
	})
}

// finalDisks: what pods mount is attached where they are, nothing else is, and the nodes
// have been told so. What was to go has gone.
func (o *oracle) finalDisks(pods []*corev1.Pod) {
	var want, have, told []string
	for _, p := range pods {
		if name, ok := strings.CutPrefix(p.Name, diskUser); ok && strings.HasPrefix(name, disk) && p.Spec.NodeName != "" && !finished(p) {
			want = append(want, name+" to "+p.Spec.NodeName)
		}
	}
	for _, a := range list(o, client.VolumeAttachments) {
		have = append(have, fmt.Sprintf("%s to %s", *a.Spec.Source.PersistentVolumeName, a.Spec.NodeName))
		if !a.Status.Attached {
			o.w.fail("volume %s does not come to be attached to %s", *a.Spec.Source.PersistentVolumeName, a.Spec.NodeName)
		}
	}
	for _, n := range list(o, client.Nodes) {
		for _, v := range n.Status.VolumesAttached {
			_, name, _ := strings.Cut(string(v.Name), "^")
			told = append(told, name+" to "+n.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	slices.Sort(told)
	if !slices.Equal(want, have) || !slices.Equal(want, told) {
		o.w.fail("disks have to be attached: %v; they are: %v; the nodes were told: %v", want, have, told)
	}
}

// leaveDoomed lets go of the disks that are to go, also of those whose claims could not be
// deleted when somebody wanted to.
func (w *world) leaveDoomed() {
	for _, name := range w.doomed {
		_ = w.leaveDisk(name) // or it is gone
		_ = client.PersistentVolumeClaims.Delete(w.t.Context(), w.admin, "free", name, metav1.DeleteOptions{})
	}
}
