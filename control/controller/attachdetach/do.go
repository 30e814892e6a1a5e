package attachdetach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

// Reasons of events.
const (
	attachedReason = "SuccessfulAttachVolume"
	failedReason   = "FailedAttachVolume"
)

// do carries a plan out. What is detached leaves the node's status first.
func (c *Controller) do(ctx context.Context, v *view, p *plan) error {
	c.tell(v, p)
	if p.differs {
		if err := c.report(ctx, v.node, p.attached); err != nil {
			return err
		}
	}
	var errs []error
	for _, a := range p.detach {
		errs = append(errs, c.detach(ctx, a))
	}
	for _, w := range p.attach {
		errs = append(errs, c.attach(ctx, v, w))
	}
	return errors.Join(errs...)
}

// report writes what is attached into the status of the node as it was seen.
func (c *Controller) report(ctx context.Context, node *corev1.Node, attached []corev1.AttachedVolume) error {
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion, "uid": node.UID},
		"status":   map[string]any{"volumesAttached": attached},
	})
	if err != nil {
		return fmt.Errorf("encode attached volumes: %w", err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name).Sub("status")
	if _, err = client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.MergePatchType, Data: data}); err != nil {
		return fmt.Errorf("report attached volumes: %w", err)
	}
	return nil
}

// detach deletes an attachment; its attacher lets it go when the volume is off.
func (c *Controller) detach(ctx context.Context, a *storagev1.VolumeAttachment) error {
	err := client.VolumeAttachments.Delete(ctx, c.transport, "", a.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &a.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("detach volume %q: %w", volumeOf(a), err)
	}
	c.own.Deleted(reconcile.Key{Name: volumeOf(a)}, a)
	return nil
}

// attach asks for an attachment.
func (c *Controller) attach(ctx context.Context, v *view, w *want) error {
	made, err := client.VolumeAttachments.Create(ctx, c.transport, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: nameOf(w.volume.Spec.CSI, v.name)},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: w.volume.Spec.CSI.Driver, NodeName: v.name,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &w.volume.Name}},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil // the mirror will show it
	}
	if err != nil {
		c.say(w.pods, corev1.EventTypeWarning, failedReason, failure(w.volume, err.Error()))
		return fmt.Errorf("attach volume %q: %w", w.volume.Name, err)
	}
	c.own.Created(reconcile.Key{Name: w.volume.Name}, made)
	c.memory[made.UID] = &course{node: v.name, asked: v.now}
	return nil
}

// tell says to pods what has become of their volumes, each thing once.
func (c *Controller) tell(v *view, p *plan) {
	taken := map[string]bool{}
	for _, w := range p.exclusive {
		taken[w.volume.Name] = true
		if !c.told[v.name][w.volume.Name] {
			c.tellExclusive(w)
		}
	}
	if delete(c.told, v.name); len(taken) > 0 {
		c.told[v.name] = taken
	}
	for _, w := range p.attaching {
		known := v.course(w.attachment)
		switch s := w.attachment.Status; {
		case s.Attached:
			if !known.asked.IsZero() {
				c.say(w.pods, corev1.EventTypeNormal, attachedReason, fmt.Sprintf("AttachVolume.Attach succeeded for volume %q ", w.volume.Name))
			}
			known.asked, known.complained = time.Time{}, ""
		case s.AttachError != nil:
			if complaint := s.AttachError.Time.String() + s.AttachError.Message; complaint != known.complained {
				known.complained = complaint
				c.say(w.pods, corev1.EventTypeWarning, failedReason, failure(w.volume, s.AttachError.Message))
			}
		case known.asked.IsZero():
			known.asked = v.now
		case v.now.Sub(known.asked) >= longestAttach:
			known.asked = v.now
			c.say(w.pods, corev1.EventTypeWarning, failedReason, failure(w.volume, fmt.Sprintf(
				"timed out waiting for external-attacher of %s CSI driver to attach volume %s", w.volume.Spec.CSI.Driver, w.volume.Spec.CSI.VolumeHandle)))
		}
	}
}

func failure(pv *corev1.PersistentVolume, what string) string {
	return fmt.Sprintf("AttachVolume.Attach failed for volume %q : %s", pv.Name, what)
}

func (c *Controller) say(pods []*corev1.Pod, eventtype, reason, message string) {
	for _, pod := range pods {
		c.events.Event(pod, eventtype, reason, message)
	}
}

// tellExclusive tells pods that their volume is taken; those of other namespaces are
// only counted.
func (c *Controller) tellExclusive(w *want) {
	var users []*corev1.Pod
	ref := w.volume.Spec.ClaimRef
	for _, pod := range c.pods.ByIndex(byClaim, ref.Namespace+"/"+ref.Name) {
		if !over(pod) && slices.Contains(w.elsewhere, pod.Spec.NodeName) {
			users = append(users, pod)
		}
	}
	what := "Volume is already exclusively attached to one node, waiting on detach before it can be attached to another node"
	if len(users) > 0 {
		names := make([]string, len(users)) // a claim's pods are all of one namespace
		for i, pod := range users {
			names[i] = pod.Name
		}
		what = "Volume is already used by pod(s) " + strings.Join(names, ", ")
	}
	c.say(w.pods, corev1.EventTypeWarning, failedReason, fmt.Sprintf("Waiting for detach for volume %q %s", w.volume.Name, what))
}
