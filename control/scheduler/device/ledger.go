// Package device keeps the scheduler's books of devices: which there are, as the
// drivers' slices and the administrators' taint rules say, and which are taken, by
// claims as the API server shows them, by claims that this scheduler has just
// written, and by those that it is about to write.
//
// One goroutine owns a Ledger. It must be the same for all profiles: nothing but
// these books keeps two pods from the same device.
//
// Facts: upstream's pkg/scheduler/framework/plugins/dynamicresources (what counts
// as taken) and k8s.io/dynamic-resource-allocation/resourceslice/tracker (how taint
// rules apply).
package device

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/structured"
)

// MaxAssumed is how long a written claim is believed in that the watch does not
// show; upstream's time. It has been deleted, then, between two lists.
const MaxAssumed = 2 * time.Minute

type claim = resourcev1.ResourceClaim

// Ledger is the books. Objects in it are shared: nobody changes them.
type Ledger struct {
	claims  map[string]*claim // as watched, by "namespace/name"
	assumed map[string]assumption
	// pending are claims that have devices in memory only, by UID.
	pending map[types.UID]*claim
	// extended are the claims that stand for extended resources, by their pods.
	extended map[types.UID]string

	classes    map[string]*resourcev1.DeviceClass
	byResource map[corev1.ResourceName]*resourcev1.DeviceClass

	slices  map[string]*resourcev1.ResourceSlice // as published
	patched map[string]*resourcev1.ResourceSlice // with taint rules applied
	rules   map[string]*resourcev1.DeviceTaintRule
	list    []*resourcev1.ResourceSlice // of patched, by name; nil when it must be made again

	taken taken
}

// assumption is a claim as it was written, until the watch shows it or a later one.
type assumption struct {
	*claim
	revision uint64
	since    time.Time
}

// NewLedger makes empty books.
func NewLedger() *Ledger {
	return &Ledger{
		claims: map[string]*claim{}, assumed: map[string]assumption{}, pending: map[types.UID]*claim{}, extended: map[types.UID]string{},
		classes: map[string]*resourcev1.DeviceClass{}, byResource: map[corev1.ResourceName]*resourcev1.DeviceClass{},
		slices: map[string]*resourcev1.ResourceSlice{}, patched: map[string]*resourcev1.ResourceSlice{},
		rules: map[string]*resourcev1.DeviceTaintRule{}, taken: newTaken(),
	}
}

func key(c *claim) string { return c.Namespace + "/" + c.Name }

func revision(c *claim) uint64 {
	n, err := strconv.ParseUint(c.ResourceVersion, 10, 64)
	if err != nil {
		return 0 // it comes from no server: any other is newer
	}
	return n
}

// Claim is a claim as it was last written or watched; nil when there is none.
func (l *Ledger) Claim(namespace, name string) *claim { return l.claim(namespace + "/" + name) }

func (l *Ledger) claim(key string) *claim {
	if a, ok := l.assumed[key]; ok {
		return a.claim
	}
	return l.claims[key]
}

// SetClaim takes over what the watch shows: an old state, nil for none, and a new
// one, nil for none. It returns the state that was believed in before.
func (l *Ledger) SetClaim(old, now *claim) (before *claim) {
	of := now
	if of == nil {
		of = old
	}
	at := key(of)
	before = l.claim(at)
	if now == nil {
		delete(l.claims, at)
	} else {
		l.claims[at] = now
	}
	if a, ok := l.assumed[at]; ok && (now == nil || revision(now) >= a.revision || now.UID != a.UID) {
		delete(l.assumed, at)
	}
	l.index(before, now, at)
	if before != nil {
		l.settle(before.UID, at)
	}
	l.settle(of.UID, at)
	return before
}

// index notes which claim stands for a pod's extended resources.
func (l *Ledger) index(before, now *claim, at string) {
	if pod, ok := extendedOf(before); ok && l.extended[pod] == at {
		delete(l.extended, pod)
	}
	if pod, ok := extendedOf(now); ok {
		l.extended[pod] = at
	}
}

// extendedOf is the pod for whose extended resources a claim stands.
func extendedOf(c *claim) (types.UID, bool) {
	if c == nil || c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
		return "", false
	}
	owner := metav1.GetControllerOfNoCopy(c)
	if owner == nil {
		return "", false
	}
	return owner.UID, true
}

// ExtendedClaim is the claim that stands for a pod's extended resources, nil when
// there is none.
func (l *Ledger) ExtendedClaim(pod types.UID) *claim {
	at, ok := l.extended[pod]
	if !ok {
		return nil
	}
	return l.claim(at)
}

// Assume believes in a claim as the server returned it, until the watch shows the
// same or a later state.
func (l *Ledger) Assume(c *claim) {
	at, rev := key(c), revision(c)
	if watched := l.claims[at]; watched != nil && (watched.UID != c.UID || revision(watched) >= rev) {
		l.settle(c.UID, at)
		return
	}
	l.assumed[at] = assumption{c, rev, time.Now()}
	l.index(nil, c, at)
	l.settle(c.UID, at)
}

// Promise takes the devices of a claim that is yet to be written.
func (l *Ledger) Promise(c *claim) {
	l.pending[c.UID] = c
	l.settle(c.UID, key(c))
}

// Pending is what has been promised to a claim; nil when nothing is.
func (l *Ledger) Pending(uid types.UID) *resourcev1.AllocationResult {
	if c, ok := l.pending[uid]; ok {
		return c.Status.Allocation
	}
	return nil
}

// Withdraw ends a promise: it has been kept, or will not be.
func (l *Ledger) Withdraw(uid types.UID) {
	if c, ok := l.pending[uid]; ok {
		delete(l.pending, uid)
		l.settle(uid, key(c))
	}
}

// settle brings what a claim takes up to date.
func (l *Ledger) settle(uid types.UID, at string) {
	want := l.claim(at)
	if want == nil || want.UID != uid || want.Status.Allocation == nil {
		want = l.pending[uid]
	}
	l.taken.set(uid, want)
}

// State is what is taken. The caller does not change it, and forgets it when the
// books change.
func (l *Ledger) State() structured.AllocatedState {
	for at, a := range l.assumed {
		if time.Since(a.since) > MaxAssumed {
			delete(l.assumed, at)
			l.index(a.claim, l.claims[at], at)
			l.settle(a.UID, at)
		}
	}
	return l.taken.state
}

// SetClass takes over a class; a nil now forgets it. It says whether other extended
// resources are devices than before.
func (l *Ledger) SetClass(old, now *resourcev1.DeviceClass) (remapped bool) {
	if now == nil {
		delete(l.classes, old.Name)
	} else {
		l.classes[now.Name] = now
	}
	remapped = old == nil || now == nil || deref(old.Spec.ExtendedResourceName) != deref(now.Spec.ExtendedResourceName)
	clear(l.byResource)
	for _, name := range slices.Sorted(maps.Keys(l.classes)) {
		c := l.classes[name]
		l.byResource[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+name)] = c
		if c.Spec.ExtendedResourceName == nil {
			continue
		}
		// Of several classes with one name the newest counts, then the first.
		resource := corev1.ResourceName(*c.Spec.ExtendedResourceName)
		if other := l.byResource[resource]; other == nil || cmp.Compare(c.CreationTimestamp.UnixNano(), other.CreationTimestamp.UnixNano()) > 0 {
			l.byResource[resource] = c
		}
	}
	return remapped
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ClassOf is the class whose devices an extended resource is; nil when it is none's.
func (l *Ledger) ClassOf(name corev1.ResourceName) *resourcev1.DeviceClass { return l.byResource[name] }

// List implements structured.DeviceClassLister.
func (l *Ledger) List() ([]*resourcev1.DeviceClass, error) {
	return slices.Collect(maps.Values(l.classes)), nil
}

// Get implements structured.DeviceClassLister.
func (l *Ledger) Get(name string) (*resourcev1.DeviceClass, error) {
	if c, ok := l.classes[name]; ok {
		return c, nil
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
}
