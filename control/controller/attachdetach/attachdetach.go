// Package attachdetach keeps a promise: what a node's pods mount is attached to that
// node, and to no other unless its volume allows it; and what nobody mounts there any
// more is detached. It asks for attachments with VolumeAttachment objects, which a
// CSI driver's attacher answers, and tells the node in status.volumesAttached. It
// follows upstream's pkg/controller/volume/attachdetach, for CSI volumes, which are
// the only ones that are attached any more.
//
// The agent has its say in status.volumesInUse: what is mounted is not detached,
// unless its node has been unwell for as long as longestUnmount or is declared to be
// out of service. A volume leaves the node's status.volumesAttached before it is
// detached, in a write that fails if the node has said something new meanwhile: so
// nobody begins to mount what is about to go.
package attachdetach

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "attachdetach-controller"
	// managed marks a node whose agent leaves attaching to this controller.
	managed = "volumes.kubernetes.io/controller-managed-attach-detach"
	// byClaim and byAttached are indexes: pods by the claims that they mount, and
	// attachments by their node. byVolume are attachments by their volume.
	byClaim, byAttached, byVolume = "claim", "attached", "volume"
	// catchUp is how soon to look again when the mirror does not show yet what was
	// written for a volume.
	catchUp = 50 * time.Millisecond
)

// Controller attaches and detaches. Its keys are nodes. One of them is looked at at a
// time, for a volume's attachments to several nodes depend on each other.
type Controller struct {
	transport   client.Transport
	events      *client.Recorder
	loop        *reconcile.Loop
	pods        *informer.Informer[*corev1.Pod]
	nodes       *informer.Informer[*corev1.Node]
	claims      *informer.Informer[*corev1.PersistentVolumeClaim]
	volumes     *informer.Informer[*corev1.PersistentVolume]
	attachments *informer.Informer[*storagev1.VolumeAttachment]
	drivers     *informer.Informer[*storagev1.CSIDriver]
	own         *controller.Own[*storagev1.VolumeAttachment] // by volume
	// memory is touched by Reconcile alone.
	memory map[types.UID]*course
	// told are the volumes, by node, whose pods know that they are attached elsewhere.
	told map[string]map[string]bool
}

// course is what is remembered of an attachment.
type course struct {
	node string
	// unwanted is since when nobody needs it; zero: somebody does.
	unwanted time.Time
	// asked is when it was asked for, or that last held to take too long; zero when
	// nobody here has asked.
	asked time.Time
	// complained is the attacher's complaint that pods were told of last.
	complained string
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport:   cfg.Transport(component),
		pods:        controller.Mirror(cfg.Mirrors, client.Pods),
		nodes:       controller.Mirror(cfg.Mirrors, client.Nodes),
		claims:      controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
		volumes:     controller.Mirror(cfg.Mirrors, client.PersistentVolumes),
		attachments: controller.Mirror(cfg.Mirrors, client.VolumeAttachments),
		drivers:     controller.Mirror(cfg.Mirrors, client.CSIDrivers),
		memory:      map[types.UID]*course{}, told: map[string]map[string]bool{},
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.own = controller.NewOwn(c.attachments)
	controller.IndexNodes(c.pods)
	c.pods.AddIndex(byClaim, claimsOf)
	c.attachments.AddIndex(byAttached, func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} })
	c.attachments.AddIndex(byVolume, func(a *storagev1.VolumeAttachment) []string { return []string{volumeOf(a)} })
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.subscribe()
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "attachdetach" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource,
		client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource,
		client.VolumeAttachments.GroupVersionResource, client.CSIDrivers.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.VolumeAttachments.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.VolumeAttachments.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Nodes.GroupVersionResource, Part: "status.volumesAttached"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// subscribe looks at nodes when something has changed that their volumes depend on.
func (c *Controller) subscribe() {
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.Old != nil && e.New != nil && e.Old.Spec.NodeName == e.New.Spec.NodeName && over(e.Old) == over(e.New) {
			return
		}
		c.lookAt(e.Object())
	})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.Old == nil || e.New == nil || tells(e.Old, e.New) {
			c.enqueue(e.Object().Name)
		}
	})
	c.claims.Subscribe(func(e informer.Event[*corev1.PersistentVolumeClaim]) { c.users(e.Object().Namespace, e.Object().Name) })
	c.volumes.Subscribe(func(e informer.Event[*corev1.PersistentVolume]) {
		if ref := e.Object().Spec.ClaimRef; ref != nil {
			c.users(ref.Namespace, ref.Name)
		}
	})
	c.attachments.Subscribe(func(e informer.Event[*storagev1.VolumeAttachment]) {
		a := e.Object()
		c.enqueue(a.Spec.NodeName)
		v, ok := c.volumes.Get("", volumeOf(a))
		if e.New == nil && ok && v.Spec.ClaimRef != nil {
			c.users(v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name) // somebody may have waited for it
		}
	})
	c.drivers.Subscribe(func(e informer.Event[*storagev1.CSIDriver]) {
		if e.Old != nil && e.New != nil && attaches(e.Old) == attaches(e.New) {
			return
		}
		for _, n := range c.nodes.List() {
			c.enqueue(n.Name)
		}
	})
}

func (c *Controller) enqueue(node string) { c.loop.Enqueue(reconcile.Key{Name: node}) }

func (c *Controller) lookAt(pod *corev1.Pod) {
	if pod.Spec.NodeName != "" && len(claimsOf(pod)) > 0 {
		c.enqueue(pod.Spec.NodeName)
	}
}

// users looks at the nodes of the pods that mount a claim.
func (c *Controller) users(namespace, claim string) {
	for _, pod := range c.pods.ByIndex(byClaim, namespace+"/"+claim) {
		c.lookAt(pod)
	}
}

// tells says whether a node's news bear upon its volumes.
func tells(old, now *corev1.Node) bool {
	return !slices.Equal(old.Status.VolumesInUse, now.Status.VolumesInUse) || !slices.Equal(old.Status.VolumesAttached, now.Status.VolumesAttached) ||
		well(old) != well(now) || outOfService(old) != outOfService(now) || old.Annotations[managed] != now.Annotations[managed]
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	v := c.look(key.Name, time.Now())
	p := v.plan()
	if err := c.do(ctx, v, p); err != nil {
		return 0, fmt.Errorf("volumes of node %q: %w", key.Name, err)
	}
	return p.again, nil
}

// look takes the picture that plan decides on.
func (c *Controller) look(name string, now time.Time) *view {
	v := &view{name: name, now: now, wants: map[string]*want{}, have: map[string]*storagev1.VolumeAttachment{}, courses: c.memory}
	v.node, _ = c.nodes.Get("", name)
	for _, pod := range controller.OnNode(c.pods, name) {
		if !over(pod) && v.node != nil {
			c.wantsOf(v, pod)
		}
	}
	for _, a := range c.attachments.ByIndex(byAttached, name) {
		pv, _ := c.volumes.Get("", volumeOf(a))
		if id, ok := identify(a, pv, v.node); ok {
			v.have[a.Name] = a
			v.names = append(v.names, named{a, id})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.wants)) {
		w := v.wants[name]
		w.stale = !c.own.Seen(reconcile.Key{Name: w.volume.Name})
		for _, a := range c.attachments.ByIndex(byVolume, w.volume.Name) {
			if a.Spec.NodeName != v.name {
				w.elsewhere = append(w.elsewhere, a.Spec.NodeName)
			}
		}
	}
	c.forget(v)
	return v
}

// wantsOf adds the volumes that a pod mounts and that have to be attached.
func (c *Controller) wantsOf(v *view, pod *corev1.Pod) {
	for _, key := range claimsOf(pod) {
		claim, ok := c.claims.Get(pod.Namespace, key[len(pod.Namespace)+1:])
		if !ok || claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "" {
			continue // its claim's news will bring us back
		}
		pv, ok := c.volumes.Get("", claim.Spec.VolumeName)
		if !ok || pv.Spec.CSI == nil || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
			continue
		}
		if driver, ok := c.drivers.Get("", pv.Spec.CSI.Driver); ok && !attaches(driver) {
			continue
		}
		name := nameOf(pv.Spec.CSI, v.name)
		if v.wants[name] == nil {
			v.wants[name] = &want{volume: pv}
		}
		v.wants[name].pods = append(v.wants[name].pods, pod)
	}
}

// forget drops what is remembered of attachments to the node that are gone.
func (c *Controller) forget(v *view) {
	there := map[types.UID]bool{}
	for _, a := range v.have {
		there[a.UID] = true
	}
	for uid, known := range c.memory {
		fresh := v.now.Sub(known.asked) < longestAttach // the mirror may not show it yet
		if known.node == v.name && !there[uid] && !fresh {
			delete(c.memory, uid)
		}
	}
}
