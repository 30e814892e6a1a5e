package seeded

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/target"
)

// followed are the kinds that the oracle follows.
var followed = []schema.GroupVersionResource{
	client.Pods.GroupVersionResource, client.ReplicaSets.GroupVersionResource, client.Deployments.GroupVersionResource,
	client.StatefulSets.GroupVersionResource, client.DaemonSets.GroupVersionResource, client.Jobs.GroupVersionResource,
	client.CronJobs.GroupVersionResource, client.EndpointSlices.GroupVersionResource, client.Services.GroupVersionResource,
	client.Namespaces.GroupVersionResource, client.Nodes.GroupVersionResource, client.ReplicationControllers.GroupVersionResource,
	client.PersistentVolumes.GroupVersionResource, client.PersistentVolumeClaims.GroupVersionResource,
	client.PodDisruptionBudgets.GroupVersionResource, client.ResourceQuotas.GroupVersionResource,
	client.VolumeAttachments.GroupVersionResource, client.CertificateSigningRequests.GroupVersionResource,
	client.StorageVersionMigrations.GroupVersionResource, client.ConfigMaps.GroupVersionResource,
}

// oracle knows what really is: it watches past the gate.
type oracle struct {
	w *world

	mu        sync.Mutex
	objects   map[string]map[string]client.Object // resource, namespace/name
	revisions map[string]int64                    // by UID, the newest seen
	attended  bool
	dirty     bool

	bound       map[string]string          // pod UID to node, claim UID to volume
	bindings    map[string]binding         // pod UID
	controllers map[string]types.UID       // pod UID to who controls it
	gone        map[types.UID]time.Time    // who has been deleted, and when
	wanted      map[string][]wish          // replica set UID
	succeeded   map[string]map[string]bool // job UID to pods that did
	counted     map[string]int32           // job UID to status.succeeded
	writers     map[string]string          // a field of an object, to the component that writes it
	records     map[string]string          // of an object's owner, the newest that was looked at
	lies        map[string]time.Time       // a status that is not true, since when
	ledger      map[string][]entry         // by resource, what the store wrote down
	issued      map[string]string          // the certificate of a request, by its UID
	written     map[string]int             // what the book says, by key
	guarded     bool                       // the guarded deployment has been whole once
}

func newOracle(ctx context.Context, w *world) *oracle {
	o := &oracle{w: w, objects: map[string]map[string]client.Object{}, revisions: map[string]int64{}, bound: map[string]string{}, bindings: map[string]binding{},
		controllers: map[string]types.UID{}, gone: map[types.UID]time.Time{},
		wanted: map[string][]wish{}, succeeded: map[string]map[string]bool{}, counted: map[string]int32{},
		writers: map[string]string{}, records: map[string]string{}, lies: map[string]time.Time{}, ledger: map[string][]entry{},
		issued: map[string]string{}, written: map[string]int{}}
	for _, r := range followed {
		o.objects[r.Resource] = map[string]client.Object{}
	}
	for _, r := range kept {
		go o.write(ctx, r)
	}
	return o
}

// attend watches at an API server that has just begun. What it lists must be what was
// known of the one before, or newer.
func (o *oracle) attend(ctx context.Context) {
	for _, r := range followed {
		from := "0"
		if o.attended {
			from = o.compare(ctx, r)
		}
		events, err := o.w.admin.Watch(ctx, target.Of(r, ""), metav1.ListOptions{ResourceVersion: from})
		if err != nil {
			o.w.t.Fatal(err)
		}
		go o.follow(r.Resource, events)
	}
	o.attended = true
}

// compare lists a kind and returns the list's revision.
func (o *oracle) compare(ctx context.Context, r schema.GroupVersionResource) string {
	list, err := o.w.admin.List(ctx, target.Of(r, ""), metav1.ListOptions{})
	if err != nil {
		o.w.t.Fatal(err)
	}
	there := map[string]bool{}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		obj := item.DeepCopyObject().(client.Object)
		there[key(obj)] = true
		revision, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
		switch known := o.revisions[string(obj.GetUID())]; {
		case revision > known:
			o.hear(r.Resource, watch.Modified, obj)
		case revision < known:
			o.w.fail("%s %s: a new API server shows revision %d, %d was seen", r.Resource, key(obj), revision, known)
		}
		return nil
	})
	m, merr := meta.ListAccessor(list)
	if err != nil || merr != nil {
		o.w.t.Fatal(err, merr)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for name := range o.objects[r.Resource] {
		if !there[name] {
			delete(o.objects[r.Resource], name)
		}
	}
	return m.GetResourceVersion()
}

func (o *oracle) follow(res string, events watch.Interface) {
	for e := range events.ResultChan() {
		obj, ok := e.Object.(client.Object)
		if !ok || e.Type == watch.Bookmark {
			continue
		}
		o.hear(res, e.Type, obj)
	}
}

func key(obj client.Object) string { return obj.GetNamespace() + "/" + obj.GetName() }

func (o *oracle) hear(res string, kind watch.EventType, obj client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dirty = true
	uid := string(obj.GetUID())
	revision, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if revision <= o.revisions[uid] {
		o.w.fail("%s %s: event %s of revision %d after %d", res, key(obj), kind, revision, o.revisions[uid])
	}
	o.revisions[uid] = revision
	if kind == watch.Deleted {
		o.gone[obj.GetUID()] = time.Now()
		delete(o.objects[res], key(obj))
		o.lost(obj)
	} else {
		o.objects[res][key(obj)] = obj
	}
	o.owners(res, obj)
	switch obj := obj.(type) {
	case *corev1.Pod:
		o.pod(obj)
	case *corev1.PersistentVolumeClaim:
		if had := o.bound[uid]; had != "" && had != obj.Spec.VolumeName {
			o.w.fail("claim %s moved from volume %s to %q", key(obj), had, obj.Spec.VolumeName)
		}
		o.bound[uid] = obj.Spec.VolumeName
	case *appsv1.ReplicaSet:
		wishes := o.wanted[uid]
		if len(wishes) == 0 || wishes[len(wishes)-1].count != *obj.Spec.Replicas {
			o.wanted[uid] = append(wishes, wish{time.Now(), *obj.Spec.Replicas})
		}
	case *batchv1.Job:
		o.job(obj)
	case *certificatesv1.CertificateSigningRequest:
		o.paper(obj)
	case *corev1.ConfigMap:
		o.scribbled(obj)
	}
}

// settled is how long the events of a watch are waited for.
const settled = time.Second

// kept are the kinds whose whole history is written down beside the API server.
var kept = []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.Jobs.GroupVersionResource, client.EndpointSlices.GroupVersionResource}

// entry is one event of a kind's history.
type entry struct {
	key      string
	revision int64
	gone     bool
}

// write writes down what the store does, until ctx ends.
func (o *oracle) write(ctx context.Context, r schema.GroupVersionResource) {
	prefix := "/registry/" + r.Resource + "/"
	w, err := o.w.objects.Watch(ctx, prefix, 1)
	if err != nil {
		o.w.t.Error(err)
		return
	}
	defer w.Stop()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return
		}
		o.mu.Lock()
		for _, e := range events {
			if e.Type != store.Progress {
				o.ledger[r.Resource] = append(o.ledger[r.Resource], entry{strings.TrimPrefix(e.Entry.Key, prefix), e.Entry.Revision, e.Type == store.Delete})
			}
		}
		o.mu.Unlock()
	}
}

// recently is how many events back a watch surely may begin.
const recently = 30

// checkHistory: a watch from any revision on brings what the store wrote down since,
// all of it, in order, and nothing else.
func (o *oracle) checkHistory(ctx context.Context) {
	for _, r := range kept {
		o.mu.Lock()
		written := slices.Clone(o.ledger[r.Resource])
		o.mu.Unlock()
		for _, among := range []int{recently, len(written)} {
			if among = min(among, len(written)); among > 0 {
				at := len(written) - 1 - o.w.rng.IntN(among)
				o.suffix(ctx, r, written[at].revision, at+1)
			}
		}
	}
}

// suffix compares what a watch from a revision brings with what was written down from
// an index on.
func (o *oracle) suffix(ctx context.Context, r schema.GroupVersionResource, from int64, index int) {
	told, ok := o.told(ctx, r, from)
	if !ok {
		return
	}
	o.mu.Lock()
	after := slices.Clone(o.ledger[r.Resource][index:])
	o.mu.Unlock()
	for i := range max(len(told), len(after)) {
		if i >= len(told) || i >= len(after) || told[i] != after[i] {
			o.w.fail("a watch of %s from revision %d brings %d events, there were %d; event %d differs", r.Resource, from, len(told), len(after), i+1)
			return
		}
	}
}

// told is what the API server's watch tells from a revision on; false when it does not
// remember so much.
func (o *oracle) told(ctx context.Context, r schema.GroupVersionResource, from int64) (all []entry, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, settled)
	defer cancel()
	events, err := o.w.admin.Watch(ctx, target.Of(r, ""), metav1.ListOptions{ResourceVersion: fmt.Sprint(from)})
	if err != nil {
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			o.w.fail("watch %s from revision %d: %v", r.Resource, from, err)
		}
		return nil, false
	}
	for e := range events.ResultChan() {
		if e.Type == watch.Error {
			return nil, false
		}
		if obj, is := e.Object.(client.Object); is && e.Type != watch.Bookmark {
			revision, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
			all = append(all, entry{key(obj), revision, e.Type == watch.Deleted})
		}
	}
	return all, true
}
