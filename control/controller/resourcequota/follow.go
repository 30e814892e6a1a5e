package resourcequota

import (
	"context"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/kinds/quota"
)

// monitor follows a kind that some quota caps. Its objects are those that the
// books have been told of: the mirror may be one event ahead.
type monitor struct {
	meter   quota.Meter
	stop    context.CancelFunc
	synced  bool
	objects map[string]map[string]client.Object // by namespace and name
	// name is the kind's in marks; revision is how far the mirror is.
	name     string
	revision func() int64
	// at is the revision of the last event that was told, before that of the last
	// with another revision.
	before, at int64
}

// measured are the kinds whose objects must be seen whole; the others are merely
// counted.
var measured = map[schema.GroupResource]bool{
	{Resource: "pods"}: true, {Resource: "services"}: true, {Resource: "persistentvolumeclaims"}: true,
	{Group: resourcev1.GroupName, Resource: "resourceclaims"}: true,
	{Group: resourcev1.GroupName, Resource: "deviceclasses"}:  true,
}

// forever is after each pod's time; never is before it.
var forever, never = time.Unix(1<<40, 0), time.Time{}

// follow starts monitors of the kinds that are capped now, and ends those of
// kinds that are not any more.
func (c *Controller) follow(ctx context.Context, running *sync.WaitGroup) {
	all, _ := c.kinds.List()
	c.mu.Lock()
	defer c.mu.Unlock()
	names := map[corev1.ResourceName]bool{}
	for _, q := range c.quotas.List() {
		for name := range q.Spec.Hard {
			names[name] = true
		}
	}
	wanted := map[schema.GroupResource]controller.Kind{}
	for _, kind := range all {
		if c.caps(names, kind) {
			wanted[kind.GroupResource()] = kind
		}
	}
	for gr, m := range c.monitors {
		if _, ok := wanted[gr]; !ok {
			m.stop()
			delete(c.monitors, gr)
		}
	}
	for gr, kind := range wanted {
		if c.monitors[gr] == nil {
			c.monitors[gr] = c.start(ctx, running, kind)
		}
	}
}

// caps says whether a kind must be followed for the sake of some capped names.
func (c *Controller) caps(names map[corev1.ResourceName]bool, kind controller.Kind) bool {
	gr := kind.GroupResource()
	if quota.Ignored(gr) {
		return false
	}
	for name := range names {
		if kind.Namespaced && len(quota.For(gr, nil).Measures([]corev1.ResourceName{name})) > 0 {
			return true
		}
		// Claims that stand for extended resources are measured by these.
		byDevice := strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) && strings.Contains(string(name), "/")
		if byDevice && gr.Group == resourcev1.GroupName && (gr.Resource == "deviceclasses" || gr.Resource == "resourceclaims") {
			return true
		}
	}
	return false
}

// start follows a kind. The caller holds mu.
func (c *Controller) start(ctx context.Context, running *sync.WaitGroup, kind controller.Kind) *monitor {
	ctx, stop := context.WithCancel(ctx)
	m := &monitor{meter: quota.For(kind.GroupResource(), devices{c}), stop: stop, objects: map[string]map[string]client.Object{}}
	opts := informer.Options{Log: c.log}
	if !measured[kind.GroupResource()] {
		opts.Strip = strip
	}
	r := client.Resource[client.Object]{GroupVersionResource: kind.GroupVersionResource, Kind: kind.Kind, Namespaced: kind.Namespaced}
	mirror := informer.New(c.transport, r, opts)
	m.name, m.revision = kind.GroupResource().String(), mirror.Revision
	mirror.Subscribe(func(e informer.Event[client.Object]) { c.changed(m, e) })
	running.Go(func() { _ = mirror.Run(ctx) }) // ends only with ctx
	running.Go(func() {
		select {
		case <-mirror.Synced():
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		m.synced = true
		if m.at == 0 {
			m.at = mirror.Revision()
		}
		c.mu.Unlock()
		for _, q := range c.quotas.List() {
			c.loop.Enqueue(controller.KeyOf(q))
		}
	})
	return m
}

// strip keeps of an object that it is there.
func strip(obj client.Object) client.Object {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion()}}
}

// changed notes an event, and what it frees in the quotas of the namespace.
func (c *Controller) changed(m *monitor, e informer.Event[client.Object]) {
	namespace := e.Object().GetNamespace()
	c.mu.Lock()
	defer c.mu.Unlock()
	m.put(e)
	if now := m.revision(); now != m.at {
		m.before, m.at = m.at, now
	}
	if e.Old == nil {
		return
	}
	for _, q := range c.quotas.ByIndex(byNamespace, namespace) {
		key := controller.KeyOf(q)
		b := c.book(key)
		less := quota.Rise(m.cost(q, e.New, b), m.cost(q, e.Old, b))
		switch {
		case len(less) == 0:
		case late(e.Old, time.Now()) && !b.overdue[e.Old.GetUID()]:
			b.doubtful = true
			c.loop.Enqueue(key)
		default:
			b.note(m, less)
			c.loop.Enqueue(key)
		}
		if e.New == nil {
			delete(b.overdue, e.Old.GetUID())
		}
	}
}

// late says that an object is a pod that should have been gone by now: a count leaves
// it out. Another leader's may have done so before ours has counted, and then what it
// was charged has been taken off already when it goes.
func late(obj client.Object, now time.Time) bool {
	pod, ok := obj.(*corev1.Pod)
	return ok && quota.Charged(pod, never) && !quota.Charged(pod, now)
}

// note writes down what the event that m was just told has freed. The book has a
// bound: beyond it the next count finds out.
func (b *book) note(m *monitor, less corev1.ResourceList) {
	if len(b.gone) >= maxGone {
		b.doubtful = true
		return
	}
	b.gone = append(b.gone, freed{kind: m.name, after: m.before, at: m.at, amount: less})
}

func (m *monitor) put(e informer.Event[client.Object]) {
	obj := e.Object()
	in := m.objects[obj.GetNamespace()]
	if e.New == nil {
		delete(in, obj.GetName())
		if len(in) == 0 {
			delete(m.objects, obj.GetNamespace())
		}
		return
	}
	if in == nil {
		in = map[string]client.Object{}
		m.objects[obj.GetNamespace()] = in
	}
	in[obj.GetName()] = e.New
}

// cost is what an object, which may be nil, has been charged in a quota.
func (m *monitor) cost(q *corev1.ResourceQuota, obj client.Object, b *book) corev1.ResourceList {
	if obj == nil || !m.meter.Scoped(q, obj) {
		return nil
	}
	at := never
	if b.overdue[obj.GetUID()] {
		at = forever
	}
	return quota.Only(m.meter.Usage(obj, at), m.meter.Measures(quota.Names(q.Spec.Hard)))
}

// ready says whether all kinds that a quota caps, and that are served, have been
// listed. The caller holds mu.
func (c *Controller) ready(q *corev1.ResourceQuota) bool {
	all, _ := c.kinds.List()
	names := map[corev1.ResourceName]bool{}
	for name := range q.Spec.Hard {
		names[name] = true
	}
	for _, kind := range all {
		if m := c.monitors[kind.GroupResource()]; (m == nil || !m.synced) && c.caps(names, kind) {
			return false
		}
	}
	return true
}

// count adds up what a namespace uses of what a quota caps, for each kind that
// is known, and names the pods it left out. The caller holds mu.
func (c *Controller) count(q *corev1.ResourceQuota, now time.Time) (corev1.ResourceList, map[types.UID]bool) {
	total, overdue := corev1.ResourceList{}, map[types.UID]bool{}
	capped := quota.Names(q.Spec.Hard)
	for _, m := range c.monitors {
		mine := m.meter.Measures(capped)
		for _, name := range mine {
			total[name] = total[name].DeepCopy()
		}
		for _, obj := range m.objects[q.Namespace] {
			if len(mine) == 0 || !m.meter.Scoped(q, obj) {
				continue
			}
			total = quota.Add(total, quota.Only(m.meter.Usage(obj, now), mine))
			if late(obj, now) {
				overdue[obj.GetUID()] = true
			}
		}
	}
	return quota.Only(total, capped), overdue
}

// devices looks up what resource claims are measured by. Its callers hold mu.
type devices struct{ c *Controller }

func (d devices) objects(group, resource, namespace string) map[string]client.Object {
	if m := d.c.monitors[schema.GroupResource{Group: group, Resource: resource}]; m != nil {
		return m.objects[namespace]
	}
	return nil
}

// ExtendedResource implements quota.Devices.
func (d devices) ExtendedResource(class string) string {
	c, ok := d.objects(resourcev1.GroupName, "deviceclasses", "")[class].(*resourcev1.DeviceClass)
	if !ok || c.Spec.ExtendedResourceName == nil {
		return ""
	}
	return *c.Spec.ExtendedResourceName
}

// HasClass implements quota.Devices.
func (d devices) HasClass(extended string) bool {
	for _, obj := range d.objects(resourcev1.GroupName, "deviceclasses", "") {
		if c, ok := obj.(*resourcev1.DeviceClass); ok && c.Spec.ExtendedResourceName != nil && *c.Spec.ExtendedResourceName == extended {
			return true
		}
	}
	return false
}

// PodUsage implements quota.Devices.
func (d devices) PodUsage(claim *resourcev1.ResourceClaim) corev1.ResourceList {
	owner, ok := quota.PodOf(claim)
	if !ok {
		return nil
	}
	pod, _ := d.objects("", "pods", claim.Namespace)[owner.Name].(*corev1.Pod)
	var owned []*resourcev1.ResourceClaim
	for _, obj := range d.objects(resourcev1.GroupName, "resourceclaims", claim.Namespace) {
		if c, ok := obj.(*resourcev1.ResourceClaim); ok {
			owned = append(owned, c)
		}
	}
	if !quota.ChargedTo(claim, pod, owned) {
		return nil
	}
	return quota.For(schema.GroupResource{Resource: "pods"}, nil).Usage(pod, never)
}
