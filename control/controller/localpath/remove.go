package localpath

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// fate is what becomes of a volume of ours.
type fate int

const (
	stays  fate = iota
	freed       // the object may go, its data stays
	doomed      // the directory goes, then the object
)

// judge is pure. The data of a volume that is bound is never touched, whatever
// else is asked; nor that of one whose policy is Retain.
func judge(v *volume) fate {
	switch {
	case v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed:
		return stays
	case v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return doomed
	case v.DeletionTimestamp != nil:
		return freed
	}
	return stays
}

// clear brings what a node is asked to remove up to date, and deletes the volumes
// whose directories are gone.
func (c *Controller) clear(ctx context.Context, name string) error {
	node, there := c.nodes.Get("", name)
	var removed, ask []string
	if there {
		removed = list(node.Annotations[annRemoved])
	}
	for _, v := range c.volumes.ByIndex(byNode, name) {
		fate := judge(v)
		if fate == doomed {
			ask = append(ask, v.Name) // until the object has gone: what was removed stays told
		}
		switch {
		case fate == freed, fate == doomed && slices.Contains(removed, v.Name):
			if err := c.drop(ctx, v, fate == doomed); err != nil {
				return err
			}
		case fate == doomed && !there:
			c.events.Eventf(v, corev1.EventTypeWarning, "VolumeFailedDelete", "node %q, which has the volume's directory, is not there", name)
		}
	}
	if !there {
		return nil
	}
	slices.Sort(ask)
	return c.ask(ctx, node, ask[:min(len(ask), maxRemovals)])
}

// ask writes into a node which directories shall go.
func (c *Controller) ask(ctx context.Context, node *corev1.Node, names []string) error {
	text := strings.Join(names, ",")
	if node.Annotations[annRemove] == text {
		return nil
	}
	var value any // null takes the annotation away
	if text != "" {
		value = text
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID, "annotations": map[string]any{annRemove: value}}})
	if err != nil {
		return err
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name)
	_, err = client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.MergePatchType, Data: patch})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("ask node %q to remove directories: %w", node.Name, err)
	}
	return nil
}

// drop lets a volume's object go: of one that is to be deleted that is asked for.
func (c *Controller) drop(ctx context.Context, v *volume, remove bool) error {
	if remove && v.DeletionTimestamp == nil {
		opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &v.UID}}
		if err := client.PersistentVolumes.Delete(ctx, c.transport, "", v.Name, opts); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete volume %q: %w", v.Name, err)
		}
		return nil // it comes back, for its finalizer
	}
	next := v.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	if len(next.Finalizers) == len(v.Finalizers) {
		return nil
	}
	if _, err := client.PersistentVolumes.Update(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let volume %q go: %w", v.Name, err)
	}
	return nil
}

// list reads names with commas, sorted.
func list(text string) []string {
	names := strings.Split(text, ",")
	slices.SortFunc(names, cmp.Compare[string])
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool { return n == "" })
}
