// Package localpath keeps a promise: a claim of the built-in storage class gets a
// volume of its own, a directory on the node that the scheduler chose for the
// claim's first pod, and the directory goes when the volume is to be deleted.
//
// The controller only writes objects. A node says in an annotation where it makes
// such directories, makes one when a pod mounts it, and removes those that another
// annotation names; a third tells which of these are gone. A node may read and
// write its own Node and nothing else that this needs, so that no rule of access is
// added for it. Order, events and words are those of upstream's library for
// provisioners (sig-storage-lib-external-provisioner).
//
// Not promised: that a volume holds no more than the claim asked for (there is no
// quota), nor that it outlives the node.
package localpath

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// What the built-in class is called, and who provisions for it.
const (
	ClassName   = "local-path"
	Provisioner = "sampan.dev/local-path"
)

// The annotations of a Node by which controller and node understand each other;
// node/volume has the same words. The lists are names of volumes, with commas.
const (
	annDirectory = "local-path.sampan.dev/directory" // the node's: where it makes directories
	annRemove    = "local-path.sampan.dev/remove"    // ours: volumes whose directories shall go
	annRemoved   = "local-path.sampan.dev/removed"   // the node's: those of them that are gone
)

const (
	component = "local-path-provisioner"
	// annNode, of a volume, is the name of its node.
	annNode = "local-path.sampan.dev/node"
	// finalizer keeps a volume until its directory is gone: upstream's, for all
	// provisioners outside of it.
	finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

	byNode  = "local path's node" // index of volumes that are ours
	byClaim = "local path's wait" // index of claims that wait for us, by their node
	// maxRemovals bounds how many directories a node is asked to remove at once.
	maxRemovals = 100
)

type (
	claim  = corev1.PersistentVolumeClaim
	volume = corev1.PersistentVolume
)

// classKey is the key of the class itself, which is looked at once.
var classKey = reconcile.Key{}

// Controller makes volumes for claims and has them removed. A key with a namespace
// is a claim, one without is a node.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	claims    *informer.Informer[*claim]
	volumes   *informer.Informer[*volume]
	classes   *informer.Informer[*storagev1.StorageClass]
	nodes     *informer.Informer[*corev1.Node]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		claims:    controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
		volumes:   controller.Mirror(cfg.Mirrors, client.PersistentVolumes),
		classes:   controller.Mirror(cfg.Mirrors, client.StorageClasses),
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.volumes.AddIndex(byNode, func(v *volume) []string {
		if v.Annotations[provisionedBy] != Provisioner || v.Spec.Local == nil {
			return nil
		}
		return []string{v.Annotations[annNode]}
	})
	c.claims.AddIndex(byClaim, func(p *claim) []string {
		if wanted(p) {
			return []string{""}
		}
		return nil
	})
	c.subscribe()
	return c, nil
}

func (c *Controller) subscribe() {
	c.claims.Subscribe(func(e informer.Event[*claim]) {
		if e.New != nil && wanted(e.New) {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.volumes.Subscribe(func(e informer.Event[*volume]) {
		if name := e.Object().Annotations[annNode]; name != "" && e.Object().Annotations[provisionedBy] == Provisioner {
			c.loop.Enqueue(reconcile.Key{Name: name})
		}
	})
	c.classes.Subscribe(func(informer.Event[*storagev1.StorageClass]) {
		for _, waiting := range c.claims.ByIndex(byClaim, "") {
			c.loop.Enqueue(controller.KeyOf(waiting))
		}
	})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.Old == nil || e.New == nil || !sameNotes(e.Old, e.New) {
			c.loop.Enqueue(reconcile.Key{Name: e.Object().Name})
		}
	})
}

// sameNotes says whether two versions of a node tell us the same.
func sameNotes(a, b *corev1.Node) bool {
	return !slices.ContainsFunc([]string{annDirectory, annRemove, annRemoved}, func(k string) bool { return a.Annotations[k] != b.Annotations[k] })
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "localpath" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource,
		client.StorageClasses.GroupVersionResource, client.Nodes.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	volumes := client.PersistentVolumes.GroupVersionResource
	return []reconcile.Write{
		{Resource: volumes, Part: "create[of " + ClassName + "]"}, {Resource: volumes, Part: "delete[of " + ClassName + "]"},
		{Resource: volumes, Part: "metadata.finalizers[" + finalizer + "]"},
		{Resource: client.PersistentVolumeClaims.GroupVersionResource, Part: "metadata.annotations[selected-node] of a node that has no place"},
		{Resource: client.Nodes.GroupVersionResource, Part: "metadata.annotations[" + annRemove + "]"},
		{Resource: client.StorageClasses.GroupVersionResource, Part: "create[" + ClassName + "]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error {
	c.loop.Enqueue(classKey)
	return c.loop.Run(ctx)
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	switch {
	case key == classKey:
		return 0, c.makeClass(ctx)
	case key.Namespace == "":
		return 0, c.clear(ctx, key.Name)
	}
	p, ok := c.claims.Get(key.Namespace, key.Name)
	if !ok || !wanted(p) {
		return 0, nil
	}
	return 0, c.provision(ctx, p)
}

// makeClass makes the built-in class, the default one, in a cluster that has no
// class. Once it is there it is whoever administers the cluster's to change; of
// several, and of another, nothing is known here.
func (c *Controller) makeClass(ctx context.Context) error {
	if len(c.classes.List()) > 0 {
		return nil
	}
	_, err := client.StorageClasses.Create(ctx, c.transport, &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: ClassName, Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner:       Provisioner,
		ReclaimPolicy:     new(corev1.PersistentVolumeReclaimDelete),
		VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make storage class %q: %w", ClassName, err)
	}
	return nil
}
