// Package pvcprotection keeps two promises about claims: one that a pod on a node
// uses stays, however often it is deleted, until that pod has gone; and a bound
// one says whether any pod refers to it, and since when none does. It follows
// upstream's pkg/controller/volume/pvcprotection.
package pvcprotection

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "pvc-protection-controller"
	finalizer = "kubernetes.io/pvc-protection"
	byClaim   = "claim" // index of pods, "namespace/name"
)

// Controller protects claims. Its keys are claims.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	claims    *informer.Informer[*corev1.PersistentVolumeClaim]
	pods      *informer.Informer[*corev1.Pod]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		claims:    controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.claims.Subscribe(func(e informer.Event[*corev1.PersistentVolumeClaim]) {
		if e.New != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.pods.AddIndex(byClaim, func(p *corev1.Pod) []string {
		var keys []string
		for _, name := range claimsOf(p) {
			keys = append(keys, p.Namespace+"/"+name)
		}
		return keys
	})
	c.pods.Subscribe(c.podChanged)
	return c, nil
}

// podChanged looks at the claims of a pod that has come, gone, been bound or
// ended.
func (c *Controller) podChanged(e informer.Event[*corev1.Pod]) {
	if e.Old != nil && e.New != nil && e.Old.UID == e.New.UID && e.Old.Spec.NodeName == e.New.Spec.NodeName &&
		controller.Ended(e.Old) == controller.Ended(e.New) && gone(e.Old) == gone(e.New) {
		return
	}
	for _, pod := range []*corev1.Pod{e.Old, e.New} {
		if pod == nil {
			continue
		}
		for _, name := range claimsOf(pod) {
			c.loop.Enqueue(reconcile.Key{Namespace: pod.Namespace, Name: name})
		}
	}
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "pvcprotection" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.PersistentVolumeClaims.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.PersistentVolumeClaims.GroupVersionResource, Part: "metadata.finalizers[" + finalizer + "]"},
		{Resource: client.PersistentVolumeClaims.GroupVersionResource, Part: "status.conditions[" + string(corev1.PersistentVolumeClaimUnused) + "]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	claim, ok := c.claims.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	if claim.DeletionTimestamp == nil && claim.Status.Phase == corev1.ClaimBound {
		if err := c.tellUse(ctx, claim); err != nil {
			return 0, err
		}
	}
	has := slices.Contains(claim.Finalizers, finalizer)
	switch {
	case claim.DeletionTimestamp == nil && !has:
		return 0, c.update(ctx, claim, append(slices.Clone(claim.Finalizers), finalizer))
	case claim.DeletionTimestamp == nil || !has:
		return 0, nil
	}
	used, err := c.used(ctx, claim, holds)
	if err != nil || used {
		return 0, err
	}
	return 0, c.update(ctx, claim, slices.DeleteFunc(slices.Clone(claim.Finalizers), func(f string) bool { return f == finalizer }))
}

// update writes a claim's finalizers.
func (c *Controller) update(ctx context.Context, claim *corev1.PersistentVolumeClaim, finalizers []string) error {
	next := claim.DeepCopy()
	next.Finalizers = finalizers
	_, err := client.PersistentVolumeClaims.Update(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update finalizers of claim %q: %w", controller.KeyOf(claim), err)
	}
	return nil
}

// tellUse writes the condition that says whether a pod refers to the claim, when
// that has changed.
func (c *Controller) tellUse(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	used, err := c.used(ctx, claim, refers)
	if err != nil {
		return err
	}
	want := corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimUnused, Status: corev1.ConditionTrue,
		Reason: "NoPodsUsingPVC", Message: "No pods are currently referencing this PVC", LastTransitionTime: metav1.Now()}
	if used {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "PodUsingPVC", "A pod is currently referencing this PVC"
	}
	next := claim.DeepCopy()
	i := slices.IndexFunc(next.Status.Conditions, func(have corev1.PersistentVolumeClaimCondition) bool { return have.Type == want.Type })
	switch {
	case i < 0:
		next.Status.Conditions = append(next.Status.Conditions, want)
	case next.Status.Conditions[i].Status == want.Status:
		return nil
	default:
		next.Status.Conditions[i] = want
	}
	_, err = client.PersistentVolumeClaims.UpdateStatus(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of claim %q: %w", controller.KeyOf(claim), err)
	}
	return nil
}

// used asks the mirror, which is right when it knows a pod, and where it knows
// none the server.
func (c *Controller) used(ctx context.Context, claim *corev1.PersistentVolumeClaim, by func(*corev1.Pod, *corev1.PersistentVolumeClaim) bool) (bool, error) {
	uses := func(pod *corev1.Pod) bool { return by(pod, claim) }
	if slices.ContainsFunc(c.pods.ByIndex(byClaim, claim.Namespace+"/"+claim.Name), uses) {
		return true, nil
	}
	pods, _, err := client.Pods.List(ctx, c.transport, claim.Namespace, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list the pods of namespace %q: %w", claim.Namespace, err)
	}
	return slices.ContainsFunc(pods, uses), nil
}

// claimsOf names the claims that a pod's volumes may be.
func claimsOf(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, pod.Name+"-"+v.Name)
		}
	}
	return names
}

// mentions says whether a pod names a claim, or was given one for an ephemeral
// volume.
func mentions(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) (named, ephemeral bool) {
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			named = named || v.PersistentVolumeClaim.ClaimName == claim.Name
		case v.Ephemeral != nil:
			ephemeral = ephemeral || pod.Name+"-"+v.Name == claim.Name && metav1.IsControlledBy(claim, pod)
		}
	}
	return named, ephemeral
}

// holds says whether a pod keeps a claim from going: only one that a node has
// seen, for a node starts no pod whose claim is being deleted. The claim of an
// ephemeral volume may go when its pod has been shut down.
func holds(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	named, ephemeral := mentions(pod, claim)
	return named || ephemeral && !gone(pod)
}

// refers says whether a pod that has not ended refers to a claim.
func refers(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	named, ephemeral := mentions(pod, claim)
	return (named || ephemeral) && !controller.Ended(pod)
}

// gone says that a pod's containers have ended and it is about to be removed.
func gone(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
}
