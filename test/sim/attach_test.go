package sim_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"

	"github.com/sampan-dev/sampan/client"
)

// diskFinalizer is the hold of the attacher of driver disk.test.
const diskFinalizer = "external-attacher/disk-test"

// attacher is a driver's attacher: it answers attachments, and lets go of those that
// are being deleted, until ctx ends. fault is what it complains of, "" for nothing.
type attacher struct {
	*plane
	fault atomic.Pointer[string]
	idle  atomic.Bool
}

func (p *plane) attacher(ctx context.Context) *attacher {
	a := &attacher{plane: p}
	a.complain("")
	events, err := client.VolumeAttachments.Watch(ctx, p.admin, "", metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		p.Fatal(err)
	}
	go func() {
		for e := range events.ResultChan() {
			if va, ok := e.Object.(*storagev1.VolumeAttachment); ok && e.Type != watch.Deleted {
				a.answer(ctx, va.DeepCopy())
			}
		}
	}()
	return a
}

func (a *attacher) complain(of string) { a.fault.Store(&of) }

func (a *attacher) answer(ctx context.Context, va *storagev1.VolumeAttachment) {
	var err error
	switch fault := *a.fault.Load(); {
	case a.idle.Load():
	case va.DeletionTimestamp != nil:
		va.Finalizers = nil
		_, err = client.VolumeAttachments.Update(ctx, a.admin, va)
	case len(va.Finalizers) == 0:
		va.Finalizers = []string{diskFinalizer}
		_, err = client.VolumeAttachments.Update(ctx, a.admin, va)
	case fault != "" && va.Status.AttachError == nil:
		va.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: fault}
		_, err = client.VolumeAttachments.UpdateStatus(ctx, a.admin, va)
	case fault == "" && !va.Status.Attached:
		va.Status = storagev1.VolumeAttachmentStatus{Attached: true}
		_, err = client.VolumeAttachments.UpdateStatus(ctx, a.admin, va)
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) { // of what has changed meanwhile it hears
		a.Errorf("attacher: %v", err)
	}
}

// disk makes a volume of driver disk.test, bound to a claim of its name.
func (p *plane) disk(name string, mode corev1.PersistentVolumeAccessMode) {
	p.Helper()
	none := ""
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{mode}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "disk.test", VolumeHandle: "handle-" + name}},
	}}
	if _, err := client.PersistentVolumes.Create(p.Context(), p.admin, v); err != nil {
		p.Fatal(err)
	}
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{mode}, StorageClassName: &none, VolumeName: name,
		Resources: corev1.VolumeResourceRequirements{Requests: size},
	}}
	if _, err := client.PersistentVolumeClaims.Create(p.Context(), p.admin, c); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// user makes a pod on a node that mounts claims.
func (p *plane) user(name, node string, claims ...string) {
	p.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
		NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "app"}},
	}}
	for _, c := range claims {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: c, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
	}
	if _, err := client.Pods.Create(p.Context(), p.admin, pod); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// gone removes a pod at once.
func (p *plane) gone(name string) {
	p.Helper()
	now := int64(0)
	if err := client.Pods.Delete(p.Context(), p.admin, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// alterNode changes a node, or its status.
func (p *plane) alterNode(name string, f func(*corev1.Node)) {
	p.Helper()
	change := func(write func(context.Context, client.Transport, *corev1.Node) (*corev1.Node, error)) error {
		n, err := client.Nodes.Get(p.Context(), p.admin, "", name)
		if err == nil {
			n = n.DeepCopy()
			f(n)
			_, err = write(p.Context(), p.admin, n)
		}
		return err
	}
	for _, write := range []func(context.Context, client.Transport, *corev1.Node) (*corev1.Node, error){client.Nodes.Update, client.Nodes.UpdateStatus} {
		// Controllers write nodes too; what has been written is not written again.
		if err := retry.OnError(retry.DefaultRetry, apierrors.IsConflict, func() error { return change(write) }); err != nil {
			p.Fatal(err)
		}
	}
	p.settle()
}

// inUse is what an agent says about what it has mounted.
func inUse(names ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.VolumesInUse = nil
		for _, name := range names {
			n.Status.VolumesInUse = append(n.Status.VolumesInUse, diskName(name))
		}
	}
}

func diskName(name string) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/disk.test^handle-" + name)
}

// expectDisks: each attachment as volume@node, + when it is attached, and what the
// nodes' statuses say.
func (p *plane) expectDisks(want string) {
	p.Helper()
	p.settle()
	all, _, err := client.VolumeAttachments.List(p.Context(), p.admin, "", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	var lines []string
	for _, a := range all {
		line := *a.Spec.Source.PersistentVolumeName + "@" + a.Spec.NodeName
		if a.Status.Attached {
			line += "+"
		}
		if a.DeletionTimestamp != nil {
			line += " going"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	nodes, _, err := client.Nodes.List(p.Context(), p.admin, "", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	for _, n := range nodes {
		for _, v := range n.Status.VolumesAttached {
			lines = append(lines, fmt.Sprintf("%s has %s", n.Name, strings.TrimPrefix(string(v.Name), "kubernetes.io/csi/disk.test^handle-")))
		}
	}
	if got := strings.Join(lines, ", "); got != want {
		p.Errorf("after %v:\n got %q\nwant %q", time.Since(bubbleStart), got, want)
	}
}

var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// attachable starts a cluster of two nodes with an attacher.
func attachable(t *testing.T) (*plane, *attacher) {
	p := start(t)
	for _, name := range []string{"a", "b"} {
		p.node(name)
		go p.beat(t.Context(), name)
		p.alterNode(name, func(n *corev1.Node) {
			n.Annotations = map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
		})
	}
	return p, p.attacher(t.Context())
}

// What a pod mounts is attached to its node before it, and detached when the agent has
// unmounted it.
func TestVolumeIsAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := attachable(t)
		p.disk("d", corev1.ReadWriteOnce)
		p.expectDisks("")
		p.user("one", "a", "d")
		p.expectDisks("d@a+, a has d")
		if got := p.reasons("one"); !slices.Contains(got, "SuccessfulAttachVolume") {
			t.Errorf("events about the pod: %v", got)
		}
		p.alterNode("a", inUse("d"))
		p.gone("one")
		p.expectDisks("d@a+, a has d") // it is mounted still
		time.Sleep(20 * time.Minute)
		p.expectDisks("d@a+, a has d") // and a node that is well takes its time
		p.alterNode("a", inUse())
		p.expectDisks("")
	})
}

// A volume of one writer goes to another node when it has left the first; whoever waits
// for that is told why. A shared one goes to both.
func TestVolumeOfOneWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := attachable(t)
		p.disk("d", corev1.ReadWriteOnce)
		p.disk("s", corev1.ReadWriteMany)
		p.user("one", "a", "d", "s")
		p.user("two", "b", "d", "s")
		p.expectDisks("d@a+, s@a+, s@b+, a has d, a has s, b has s")
		p.expectEvent("two", `Waiting for detach for volume "d" Volume is already used by pod(s) one`)
		p.gone("one")
		p.expectDisks("d@b+, s@b+, b has d, b has s")
	})
}

func (p *plane) expectEvent(pod, message string) {
	p.Helper()
	p.settle()
	events, _, err := client.Events.List(p.Context(), p.admin, "default", metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	if err != nil {
		p.Fatal(err)
	}
	for _, e := range events {
		if e.Message == message && e.Type == corev1.EventTypeWarning && e.Reason == "FailedAttachVolume" && e.Count == 1 {
			return
		}
	}
	p.Errorf("no single event %q about %s among %d", message, pod, len(events))
}

// A node that is unwell gets six minutes to unmount; one that is out of service none.
func TestVolumeOfLostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := attachable(t)
		p.disk("d", corev1.ReadWriteOnce)
		p.disk("e", corev1.ReadWriteOnce)
		p.node("c") // nobody hears of it again
		p.alterNode("c", func(n *corev1.Node) {
			n.Annotations = map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
		})
		p.user("one", "c", "d")
		p.user("two", "a", "e")
		p.alterNode("c", inUse("d"))
		p.alterNode("a", inUse("e"))
		time.Sleep(2 * time.Minute)
		p.gone("one")
		p.user("other", "b", "d")
		time.Sleep(5 * time.Minute)
		p.expectDisks("d@c+, e@a+, a has e, c has d")
		p.expectEvent("other", `Waiting for detach for volume "d" Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node`)
		time.Sleep(time.Minute)
		p.expectDisks("d@b+, e@a+, a has e, b has d")
		p.gone("two")
		p.alterNode("a", func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute})
		})
		p.expectDisks("d@b+, b has d")
	})
}

// What an attacher complains of, and that it does not answer, is told to the pod. While
// it is at work on a detachment nothing is attached anew.
func TestAttacherFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, a := attachable(t)
		p.disk("d", corev1.ReadWriteOnce)
		a.complain("no such disk")
		p.user("one", "a", "d")
		p.expectDisks("d@a")
		p.expectEvent("one", `AttachVolume.Attach failed for volume "d" : no such disk`)
		a.idle.Store(true)
		p.gone("one")
		p.expectDisks("d@a going")
		p.user("again", "a", "d")
		p.expectDisks("d@a going")
		a.idle.Store(false)
		a.complain("")
		va, _, err := client.VolumeAttachments.List(t.Context(), p.admin, "", metav1.ListOptions{})
		if err != nil || len(va) != 1 {
			t.Fatalf("%v, %d attachments", err, len(va))
		}
		a.answer(t.Context(), va[0].DeepCopy())
		p.expectDisks("d@a+, a has d")
		p.disk("slow", corev1.ReadWriteOnce)
		a.idle.Store(true)
		p.user("patient", "b", "slow")
		time.Sleep(longestAttach)
		p.expectEvent("patient", `AttachVolume.Attach failed for volume "slow" : timed out waiting for external-attacher of disk.test CSI driver to attach volume handle-slow`)
	})
}

// longestAttach is how long an attacher gets until pods hear that it takes long.
const longestAttach = 2 * time.Minute

// A driver that says that it attaches nothing is spared; a node that is gone keeps
// nothing; one that attaches for itself is left alone.
func TestNothingToAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := attachable(t)
		p.disk("d", corev1.ReadWriteOnce)
		p.user("one", "a", "d")
		p.alterNode("a", inUse("d"))
		p.expectDisks("d@a+, a has d")
		p.node("own")
		p.disk("e", corev1.ReadWriteOnce)
		p.user("two", "own", "e")
		p.expectDisks("d@a+, a has d")
		if err := client.Nodes.Delete(t.Context(), p.admin, "", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.expectDisks("")
		no := false
		driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk.test"}, Spec: storagev1.CSIDriverSpec{AttachRequired: &no}}
		if _, err := client.CSIDrivers.Create(t.Context(), p.admin, driver); err != nil {
			t.Fatal(err)
		}
		p.user("three", "b", "d")
		p.expectDisks("")
	})
}
