// Package resourceclaim keeps two promises: a pod that asks for devices by a
// template has a claim of its own, which its status names; and a claim counts as
// used by no pod that has ended. It follows upstream's
// pkg/controller/resourceclaim, for pods (pod groups have no claims by default).
package resourceclaim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component  = "resource-claim-controller"
	source     = "resource_claim"
	byTemplate = "claim template" // index of pods, "namespace/name"
	byClaim    = "resource claim" // index of pods, "namespace/name"
	// maxBase is the longest that may precede the random end of a claim's name.
	maxBase = 57
)

type claim = resourcev1.ResourceClaim

// Controller makes the claims of pods, and reserves them for pods that were bound
// without the scheduler. Its keys are pods.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	claims    *informer.Informer[*claim]
	templates *informer.Informer[*resourcev1.ResourceClaimTemplate]
	own       *controller.Own[*claim]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		claims:    controller.Mirror(cfg.Mirrors, client.ResourceClaims),
		templates: controller.Mirror(cfg.Mirrors, client.ResourceClaimTemplates),
	}
	c.events, c.own = client.NewRecorder(c.transport, source, ""), controller.NewOwn(c.claims)
	controller.IndexOwners(c.claims)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.pods.AddIndex(byTemplate, func(p *corev1.Pod) (keys []string) {
		for i := range p.Spec.ResourceClaims {
			if name := p.Spec.ResourceClaims[i].ResourceClaimTemplateName; name != nil {
				keys = append(keys, p.Namespace+"/"+*name)
			}
		}
		return keys
	})
	indexClaims(c.pods)
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New != nil && len(e.New.Spec.ResourceClaims) > 0 {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.templates.Subscribe(func(e informer.Event[*resourcev1.ResourceClaimTemplate]) {
		c.enqueue(byTemplate, e.Object())
	})
	c.claims.Subscribe(func(e informer.Event[*claim]) {
		c.enqueue(byClaim, e.Object())
		if ref := metav1.GetControllerOfNoCopy(e.Object()); ref != nil && ref.Kind == client.Pods.Kind {
			c.loop.Enqueue(reconcile.Key{Namespace: e.Object().Namespace, Name: ref.Name})
		}
	})
	return c, nil
}

// indexClaims finds pods by the claims that they use.
func indexClaims(pods *informer.Informer[*corev1.Pod]) {
	pods.AddIndex(byClaim, func(p *corev1.Pod) (keys []string) {
		for i := range p.Spec.ResourceClaims {
			if name := nameOf(p, &p.Spec.ResourceClaims[i]); name != "" {
				keys = append(keys, p.Namespace+"/"+name)
			}
		}
		return keys
	})
}

func (c *Controller) enqueue(index string, obj client.Object) {
	for _, pod := range c.pods.ByIndex(index, obj.GetNamespace()+"/"+obj.GetName()) {
		c.loop.Enqueue(controller.KeyOf(pod))
	}
}

// nameOf is the claim that an entry of a pod stands for; "" when there is none yet.
func nameOf(p *corev1.Pod, entry *corev1.PodResourceClaim) string {
	if entry.ResourceClaimName != nil {
		return *entry.ResourceClaimName
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == entry.Name && s.ResourceClaimName != nil {
			return *s.ResourceClaimName
		}
	}
	return ""
}

// done says whether a pod uses its claims no more.
func done(p *corev1.Pod) bool {
	return controller.Ended(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "resourceclaim" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Pods.GroupVersionResource, client.ResourceClaims.GroupVersionResource, client.ResourceClaimTemplates.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.ResourceClaims.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.ResourceClaims.GroupVersionResource, Part: "status.reservedFor[bound without the scheduler]"},
		{Resource: client.Pods.GroupVersionResource, Part: "status.resourceClaimStatuses"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || pod.DeletionTimestamp != nil || done(pod) {
		c.own.Forget(key)
		return 0, nil
	}
	if !c.own.Seen(key) {
		return controller.Unseen, nil
	}
	made, err := c.make(ctx, pod)
	if len(made) > 0 {
		told := c.tell(ctx, pod, made)
		if apierrors.IsConflict(told) {
			return controller.Unseen, nil // the pod has changed meanwhile, which is nobody's concern
		}
		err = errors.Join(err, told)
	}
	if err != nil {
		c.events.Eventf(pod, corev1.EventTypeWarning, "FailedResourceClaimCreation", "PodResourceClaim %v", err)
		return 0, err
	}
	return 0, c.reserve(ctx, pod)
}

// make creates what is missing and returns the names that the status lacks.
func (c *Controller) make(ctx context.Context, pod *corev1.Pod) (map[string]string, error) {
	names := map[string]string{}
	for i := range pod.Spec.ResourceClaims {
		entry := &pod.Spec.ResourceClaims[i]
		if entry.ResourceClaimTemplateName == nil {
			continue
		}
		have := c.find(pod, entry.Name)
		if have == nil {
			var err error
			if have, err = c.create(ctx, pod, entry); err != nil {
				return names, fmt.Errorf("%s: %w", entry.Name, err)
			}
		}
		if nameOf(pod, entry) != have.Name {
			names[entry.Name] = have.Name
		}
	}
	return names, nil
}

// find is the claim that was made for an entry of a pod: also when a crash kept it
// from the pod's status.
func (c *Controller) find(pod *corev1.Pod, entry string) *claim {
	for _, have := range controller.Owned(c.claims, pod) {
		if have.Annotations[resourcev1.PodResourceClaimAnnotation] == entry && have.DeletionTimestamp == nil {
			return have
		}
	}
	return nil
}

func (c *Controller) create(ctx context.Context, pod *corev1.Pod, entry *corev1.PodResourceClaim) (*claim, error) {
	name := *entry.ResourceClaimTemplateName
	t, ok := c.templates.Get(pod.Namespace, name)
	if !ok {
		return nil, fmt.Errorf("resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", name, name)
	}
	made, err := client.ResourceClaims.Create(ctx, c.transport, claimOf(pod, entry.Name, t))
	if err != nil {
		return nil, fmt.Errorf("create ResourceClaim : %w", err)
	}
	c.own.Created(controller.KeyOf(pod), made)
	return made, nil
}

// claimOf is pure: the claim for an entry of a pod. Its owner does not wait for it.
func claimOf(pod *corev1.Pod, entry string, t *resourcev1.ResourceClaimTemplate) *claim {
	t = t.DeepCopy()
	notes := maps.Clone(t.Spec.Annotations)
	if notes == nil {
		notes = map[string]string{}
	}
	notes[resourcev1.PodResourceClaimAnnotation] = entry
	prefix := pod.Name + "-" + entry + "-"
	if n := len(prefix); n > maxBase {
		prefix = pod.Name[:len(pod.Name)*maxBase/n] + "-" + entry[:len(entry)*maxBase/n]
	}
	owner := client.Pods.Owner(pod)
	owner.BlockOwnerDeletion = nil
	return &claim{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: prefix, Labels: t.Spec.Labels, Annotations: notes,
			OwnerReferences: []metav1.OwnerReference{owner}},
		Spec: t.Spec.Spec,
	}
}

// tell writes the claims' names into the pod's status.
func (c *Controller) tell(ctx context.Context, pod *corev1.Pod, names map[string]string) error {
	var all []corev1.PodResourceClaimStatus
	for _, entry := range slices.Sorted(maps.Keys(names)) {
		all = append(all, corev1.PodResourceClaimStatus{Name: entry, ResourceClaimName: new(names[entry])})
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, "resourceVersion": pod.ResourceVersion}, "status": map[string]any{"resourceClaimStatuses": all}})
	if err != nil {
		return fmt.Errorf("encode claims of pod %q: %w", controller.KeyOf(pod), err)
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("status")
	if _, err := client.Pods.Patch(ctx, c.transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data}); err != nil {
		return fmt.Errorf("update pod %s/%s ResourceClaimStatuses: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// reserve is for a pod that somebody else than the scheduler has bound: allocated
// claims are its, too.
func (c *Controller) reserve(ctx context.Context, pod *corev1.Pod) error {
	if pod.Spec.NodeName == "" {
		return nil
	}
	for i := range pod.Spec.ResourceClaims {
		have, ok := c.claims.Get(pod.Namespace, nameOf(pod, &pod.Spec.ResourceClaims[i]))
		if !ok || have.Status.Allocation == nil || have.DeletionTimestamp != nil || len(have.Status.ReservedFor) >= resourcev1.ResourceClaimReservedForMaxSize ||
			slices.ContainsFunc(have.Status.ReservedFor, func(u resourcev1.ResourceClaimConsumerReference) bool { return u.UID == pod.UID }) {
			continue
		}
		next := have.DeepCopy()
		next.Status.ReservedFor = append(next.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		if _, err := client.ResourceClaims.UpdateStatus(ctx, c.transport, next); err != nil {
			return fmt.Errorf("reserve claim %q for pod %q: %w", have.Name, controller.KeyOf(pod), err)
		}
	}
	return nil
}
