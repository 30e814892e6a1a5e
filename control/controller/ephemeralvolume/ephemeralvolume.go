// Package ephemeralvolume keeps a promise: a pod's generic ephemeral volumes have
// the claims that they are made of, which go with the pod. It follows upstream's
// pkg/controller/volume/ephemeral.
package ephemeralvolume

import (
	"context"
	"fmt"
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
	component = "ephemeral-volume-controller"
	source    = "ephemeral_volume"
)

// Controller makes claims. Its keys are pods.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	claims    *informer.Informer[*corev1.PersistentVolumeClaim]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		claims:    controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		// A pod's volumes never change: the first sight is enough.
		if e.New != nil && (e.Old == nil || e.Old.UID != e.New.UID) && len(missing(e.New, nothing)) > 0 {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.claims.Subscribe(func(e informer.Event[*corev1.PersistentVolumeClaim]) {
		if ref := metav1.GetControllerOfNoCopy(e.Object()); e.New == nil && ref != nil && ref.Kind == client.Pods.Kind {
			c.loop.Enqueue(reconcile.Key{Namespace: e.Old.Namespace, Name: ref.Name})
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "ephemeralvolume" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.PersistentVolumeClaims.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.PersistentVolumeClaims.GroupVersionResource, Part: "create[of pods]"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || pod.DeletionTimestamp != nil {
		return 0, nil
	}
	for _, v := range missing(pod, c.claims.Get) {
		if err := c.make(ctx, pod, v); err != nil {
			err = fmt.Errorf("ephemeral volume %s: %w", v.Name, err)
			c.events.Event(pod, corev1.EventTypeWarning, "FailedBinding", err.Error())
			return 0, fmt.Errorf("pod %s, %w", key, err)
		}
	}
	return 0, nil
}

func nothing(string, string) (*corev1.PersistentVolumeClaim, bool) { return nil, false }

// missing is pure: the volumes of a pod whose claim is not there, or is not its.
func missing(pod *corev1.Pod, find func(namespace, name string) (*corev1.PersistentVolumeClaim, bool)) []*corev1.Volume {
	var all []*corev1.Volume
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		if claim, ok := find(pod.Namespace, pod.Name+"-"+v.Name); !ok || !metav1.IsControlledBy(claim, pod) {
			all = append(all, v)
		}
	}
	return all
}

// make creates a claim; one of that name that is the pod's is as good.
func (c *Controller) make(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name := pod.Name + "-" + v.Name
	if have, ok := c.claims.Get(pod.Namespace, name); ok {
		return others(pod, have)
	}
	template := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name, Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{client.Pods.Owner(pod)}},
		Spec: template.Spec,
	}
	_, err := client.PersistentVolumeClaims.Create(ctx, c.transport, claim)
	if apierrors.IsAlreadyExists(err) {
		have, gerr := client.PersistentVolumeClaims.Get(ctx, c.transport, pod.Namespace, name)
		if gerr == nil {
			return others(pod, have)
		}
	}
	if err != nil {
		return fmt.Errorf("create PVC %s: %w", name, err)
	}
	return nil
}

// others complains about a claim that is not the pod's: its data is somebody's.
func others(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) error {
	if metav1.IsControlledBy(claim, pod) {
		return nil
	}
	return fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, claim.Name, pod.Namespace, pod.Name)
}
