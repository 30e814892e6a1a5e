package scheduler

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// storageMirror is the Storage of a running scheduler.
type storageMirror struct {
	claims     *informer.Informer[*corev1.PersistentVolumeClaim]
	volumes    *informer.Informer[*corev1.PersistentVolume]
	classes    *informer.Informer[*storagev1.StorageClass]
	nodes      *informer.Informer[*storagev1.CSINode]
	drivers    *informer.Informer[*storagev1.CSIDriver]
	capacities *informer.Informer[*storagev1.CSIStorageCapacity]
	// attachments are found by node.
	attachments *informer.Informer[*storagev1.VolumeAttachment]
}

// byNode is an index of attachments.
const byNode = "node"

// newStorageMirror calls changed whenever any of the objects does.
func newStorageMirror(t client.Transport, opts informer.Options, changed func(Change)) *storageMirror {
	m := &storageMirror{
		claims:     mirrored(t, client.PersistentVolumeClaims, opts, ClaimChanged, changed),
		volumes:    mirrored(t, client.PersistentVolumes, opts, VolumeChanged, changed),
		classes:    mirrored(t, client.StorageClasses, opts, ClassChanged, changed),
		nodes:      mirrored(t, client.CSINodes, opts, CSINodeChanged, changed),
		drivers:    mirrored(t, client.CSIDrivers, opts, CSIDriverChanged, changed),
		capacities: mirrored(t, client.CSIStorageCapacities, opts, CapacityChanged, changed),

		attachments: mirrored(t, client.VolumeAttachments, opts, AttachmentChanged, changed),
	}
	m.attachments.AddIndex(byNode, func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} })
	return m
}

func mirrored[T client.Object](t client.Transport, r client.Resource[T], opts informer.Options, kind ChangeKind, changed func(Change)) *informer.Informer[T] {
	i := informer.New(t, r, opts)
	i.Subscribe(func(e informer.Event[T]) { changed(Change{Kind: kind, Old: some(e.Old), New: some(e.New)}) })
	return i
}

// some is an object, or nil where there is none.
func some[T client.Object](obj T) any {
	if any(obj) == any(*new(T)) {
		return nil
	}
	return obj
}

// run starts the mirrors and returns what closes when they are complete.
func (m *storageMirror) run(ctx context.Context) []<-chan struct{} {
	return []<-chan struct{}{
		follow(ctx, m.claims), follow(ctx, m.volumes), follow(ctx, m.classes),
		follow(ctx, m.nodes), follow(ctx, m.drivers), follow(ctx, m.capacities), follow(ctx, m.attachments),
	}
}

func follow[T client.Object](ctx context.Context, i *informer.Informer[T]) <-chan struct{} {
	go func() { _ = i.Run(ctx) }()
	return i.Synced()
}

// Claim implements Storage.
func (m *storageMirror) Claim(namespace, name string) *corev1.PersistentVolumeClaim {
	obj, _ := m.claims.Get(namespace, name)
	return obj
}

// Volume implements Storage.
func (m *storageMirror) Volume(name string) *corev1.PersistentVolume {
	obj, _ := m.volumes.Get("", name)
	return obj
}

// Volumes implements Storage.
func (m *storageMirror) Volumes() []*corev1.PersistentVolume { return m.volumes.List() }

// Class implements Storage.
func (m *storageMirror) Class(name string) *storagev1.StorageClass {
	obj, _ := m.classes.Get("", name)
	return obj
}

// CSINode implements Storage.
func (m *storageMirror) CSINode(name string) *storagev1.CSINode {
	obj, _ := m.nodes.Get("", name)
	return obj
}

// CSIDriver implements Storage.
func (m *storageMirror) CSIDriver(name string) *storagev1.CSIDriver {
	obj, _ := m.drivers.Get("", name)
	return obj
}

// Capacities implements Storage.
func (m *storageMirror) Capacities() []*storagev1.CSIStorageCapacity { return m.capacities.List() }

// Attachments implements Storage.
func (m *storageMirror) Attachments(node string) []*storagev1.VolumeAttachment {
	return m.attachments.ByIndex(byNode, node)
}

// ownerMirror knows which pods belong together by default: those of a service,
// and of a controller.
type ownerMirror struct {
	services     *informer.Informer[*corev1.Service]
	controllers  *informer.Informer[*corev1.ReplicationController]
	replicaSets  *informer.Informer[*appsv1.ReplicaSet]
	statefulSets *informer.Informer[*appsv1.StatefulSet]
}

// newOwnerMirror calls changed when other pods may belong together.
func newOwnerMirror(t client.Transport, opts informer.Options, changed func()) *ownerMirror {
	m := &ownerMirror{
		services:     informer.New(t, client.Services, opts),
		controllers:  informer.New(t, client.ReplicationControllers, opts),
		replicaSets:  informer.New(t, client.ReplicaSets, opts),
		statefulSets: informer.New(t, client.StatefulSets, opts),
	}
	m.services.Subscribe(func(e informer.Event[*corev1.Service]) {
		if e.Old == nil || e.New == nil || !equalLabels(e.Old.Spec.Selector, e.New.Spec.Selector) {
			changed()
		}
	})
	whenAdded(m.controllers, changed) // selectors of those below do not change
	whenAdded(m.replicaSets, changed)
	whenAdded(m.statefulSets, changed)
	return m
}

func whenAdded[T client.Object](i *informer.Informer[T], changed func()) {
	i.Subscribe(func(e informer.Event[T]) {
		if any(e.Old) == any(*new(T)) {
			changed()
		}
	})
}

func (m *ownerMirror) run(ctx context.Context) []<-chan struct{} {
	return []<-chan struct{}{
		follow(ctx, m.services), follow(ctx, m.controllers), follow(ctx, m.replicaSets), follow(ctx, m.statefulSets),
	}
}

// selector is upstream's default for spreading: the labels that all services of
// the pod select by, and its controller's selector. It is nil when there is none.
func (m *ownerMirror) selector(pod *corev1.Pod) labels.Selector {
	all := labels.Set{}
	for _, s := range m.services.List() {
		if s.Namespace == pod.Namespace && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			all = labels.Merge(all, s.Spec.Selector)
		}
	}
	selector := labels.NewSelector()
	if len(all) > 0 {
		selector = all.AsSelector()
	}
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return useful(selector)
	}
	switch owner.Kind {
	case "ReplicationController":
		if rc, ok := m.controllers.Get(pod.Namespace, owner.Name); ok && rc.UID == owner.UID {
			return useful(labels.Merge(all, rc.Spec.Selector).AsSelector())
		}
	case "ReplicaSet":
		if rs, ok := m.replicaSets.Get(pod.Namespace, owner.Name); ok && rs.UID == owner.UID {
			return useful(with(selector, rs.Spec.Selector))
		}
	case "StatefulSet":
		if set, ok := m.statefulSets.Get(pod.Namespace, owner.Name); ok && set.UID == owner.UID {
			return useful(with(selector, set.Spec.Selector))
		}
	}
	return useful(selector)
}

func with(s labels.Selector, more *metav1.LabelSelector) labels.Selector {
	other, err := metav1.LabelSelectorAsSelector(more)
	if err != nil {
		return s
	}
	if requirements, selectable := other.Requirements(); selectable {
		return s.Add(requirements...)
	}
	return s
}

func useful(s labels.Selector) labels.Selector {
	if s.Empty() {
		return nil
	}
	return s
}
