// Package history keeps the former pod templates of an owner, a stateful or a
// daemon set, as ControllerRevisions: what upstream's pkg/controller/history
// does. Names, hashes and contents are upstream's, so that kubectl rollout reads
// them and a set that moves to us finds its own.
package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// longestOwner leaves room for the hash behind the owner's name.
	longestOwner = 223
	// maxCollisions bounds the search for a free name in one round.
	maxCollisions = 100
)

// Revision is a former or present template of an owner.
type Revision = appsv1.ControllerRevision

// History reads and writes revisions. It may be used from any goroutine.
type History struct {
	Transport client.Transport
	Mirror    *informer.Informer[*Revision]
	Own       *controller.Own[*Revision]
	hashLabel string
}

// New makes a History that reads from mirror. Before the mirror runs. hashLabel
// is where a revision carries the hash of its content; the kinds of owners differ
// in it.
func New(t client.Transport, mirror *informer.Informer[*Revision], hashLabel string) *History {
	controller.IndexOwners(mirror)
	return &History{Transport: t, Mirror: mirror, Own: controller.NewOwn(mirror), hashLabel: hashLabel}
}

// Of returns owner's revisions in order, after adopting those that match its
// selector and have no controller. confirm asks the server for the owner.
func (h *History) Of(ctx context.Context, owner client.Object, ref metav1.OwnerReference, selector labels.Selector, confirm func(context.Context) (client.Object, error)) ([]*Revision, error) {
	claim := controller.Claim[*Revision]{
		Transport: h.Transport, Resource: client.ControllerRevisions, Owner: owner,
		OwnerKind: appsv1.SchemeGroupVersion.WithKind(ref.Kind), Selector: selector, Confirm: confirm,
	}
	var mine []*Revision
	var orphans []*Revision
	for _, r := range controller.Owned(h.Mirror, owner) {
		if selector.Matches(labels.Set(r.Labels)) { // others are left alone, as upstream
			mine = append(mine, r)
		}
	}
	for _, r := range controller.Orphans(h.Mirror, owner.GetNamespace()) {
		if claim.Decide(r) == controller.Adopt {
			orphans = append(orphans, r)
		}
	}
	adopted, err := claim.Sort(ctx, orphans)
	mine = append(mine, adopted...)
	slices.SortFunc(mine, func(a, b *Revision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return mine, err
}

// Make is the revision of a template, not yet stored or numbered. It is pure.
func (h *History) Make(owner metav1.Object, ref metav1.OwnerReference, template *corev1.PodTemplateSpec, collisions int32) (*Revision, error) {
	data, err := encode(template)
	if err != nil {
		return nil, err
	}
	r := &Revision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			Labels:          maps.Clone(template.Labels),
			Annotations:     maps.Clone(owner.GetAnnotations()),
			OwnerReferences: []metav1.OwnerReference{ref},
		},
		Data: runtime.RawExtension{Raw: data},
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	h.name(r, owner.GetName(), collisions)
	return r, nil
}

func (h *History) name(r *Revision, owner string, collisions int32) {
	sum := fnv.New32()
	sum.Write(r.Data.Raw)
	sum.Write([]byte(strconv.Itoa(int(collisions))))
	hash := rand.SafeEncodeString(strconv.FormatUint(uint64(sum.Sum32()), 10))
	r.Name = owner[:min(len(owner), longestOwner)] + "-" + hash
	r.Labels[h.hashLabel] = hash
}

// encode writes template as a strategic merge patch of its owner, the form that
// kubectl rollout undo applies.
func encode(template *corev1.PodTemplateSpec) ([]byte, error) {
	data, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	fields := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // the numbers as they were
	if err := d.Decode(&fields); err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// Template is the template that a revision has, with the defaults of today.
func Template(r *Revision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("decode revision %q: %w", r.Name, err)
	}
	core.DefaultPodTemplate(&patch.Spec.Template)
	return &patch.Spec.Template, nil
}

// Equal says whether two revisions have the same template. Bytes may differ where
// the defaults have grown.
func Equal(a, b *Revision) bool {
	if bytes.Equal(a.Data.Raw, b.Data.Raw) {
		return true
	}
	left, err := Template(a)
	if err != nil {
		return false
	}
	right, err := Template(b)
	return err == nil && equality.Semantic.DeepEqual(left, right)
}

// Find is the newest of revisions, which are in order, that equals wanted; nil
// when there is none.
func Find(revisions []*Revision, wanted *Revision) *Revision {
	for _, same := range []func(a, b *Revision) bool{
		func(a, b *Revision) bool { return bytes.Equal(a.Data.Raw, b.Data.Raw) },
		Equal,
	} {
		for _, r := range slices.Backward(revisions) {
			if same(r, wanted) {
				return r
			}
		}
	}
	return nil
}

// Next is the number that follows those of revisions, which are in order.
func Next(revisions []*Revision) int64 {
	if len(revisions) == 0 {
		return 1
	}
	return revisions[len(revisions)-1].Revision + 1
}

// Store creates wanted for owner. When another content has its name, the count of
// collisions is raised until a name is free; it returns the count, too.
func (h *History) Store(ctx context.Context, key reconcile.Key, wanted *Revision, collisions int32) (*Revision, int32, error) {
	wanted = wanted.DeepCopy()
	for range maxCollisions {
		h.name(wanted, key.Name, collisions)
		made, err := client.ControllerRevisions.Create(ctx, h.Transport, wanted)
		if err == nil {
			h.Own.Created(key, made)
			return made, collisions, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, collisions, fmt.Errorf("create revision %q: %w", wanted.Name, err)
		}
		known, err := client.ControllerRevisions.Get(ctx, h.Transport, wanted.Namespace, wanted.Name)
		if err != nil {
			return nil, collisions, fmt.Errorf("read revision %q: %w", wanted.Name, err)
		}
		if bytes.Equal(known.Data.Raw, wanted.Data.Raw) && known.DeletionTimestamp == nil &&
			slices.ContainsFunc(known.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == wanted.OwnerReferences[0].UID }) {
			return known, collisions, nil
		}
		collisions++
	}
	return nil, collisions, fmt.Errorf("no free name for a revision of %q", key)
}

// Renumber makes r the newest.
func (h *History) Renumber(ctx context.Context, key reconcile.Key, r *Revision, to int64) (*Revision, error) {
	if r.Revision == to {
		return r, nil
	}
	next := r.DeepCopy()
	next.Revision = to
	stored, err := client.ControllerRevisions.Update(ctx, h.Transport, next)
	if err != nil {
		return nil, fmt.Errorf("renumber revision %q: %w", r.Name, err)
	}
	h.Own.Wrote(key, stored)
	return stored, nil
}

// Delete removes r, and no other of its name.
func (h *History) Delete(ctx context.Context, key reconcile.Key, r *Revision) error {
	err := client.ControllerRevisions.Delete(ctx, h.Transport, r.Namespace, r.Name,
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete revision %q: %w", r.Name, err)
	}
	h.Own.Deleted(key, r)
	return nil
}

// Expendable are the revisions beyond limit, oldest first, that nothing lives by.
func Expendable(revisions []*Revision, live map[string]bool, limit int) []*Revision {
	dead := slices.DeleteFunc(slices.Clone(revisions), func(r *Revision) bool { return live[r.Name] })
	return dead[:max(0, len(dead)-max(0, limit))]
}
