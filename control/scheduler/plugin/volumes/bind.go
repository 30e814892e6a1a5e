package volumes

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// DefaultBindTimeout is how long a pod waits for its volumes; upstream's.
const DefaultBindTimeout = 10 * time.Minute

// Binding is upstream's VolumeBinding: bound volumes must be reachable, unbound
// claims must find a volume or a provisioner, and are bound before the pod is.
type Binding struct {
	every
	timeout time.Duration
	// taken are the volumes promised to claims of pods that are being bound. The
	// goroutine that decides owns it.
	taken map[string]string
	// found are the plans of the attempt that is being made, by node.
	found map[string]plan
}

// NewBinding makes the filter; timeout bounds the wait for volumes, 0 is the
// default.
func NewBinding(timeout time.Duration) *Binding {
	return &Binding{timeout: cmp.Or(timeout, DefaultBindTimeout), taken: map[string]string{}}
}

// Name implements scheduler.Filter.
func (*Binding) Name() string { return "VolumeBinding" }

// Precheck implements scheduler.Prechecker.
func (*Binding) Precheck(pod *corev1.Pod, v scheduler.View) scheduler.Reason {
	s := v.Storage()
	if err := check(pod, s); err != nil {
		return scheduler.Reason{Text: err.Error(), Final: true}
	}
	for _, claim := range claims(pod, s) {
		if !bound(claim) && (claim.Spec.VolumeName != "" || !waits(claim, s)) {
			return scheduler.Reason{Text: "pod has unbound immediate PersistentVolumeClaims", Final: true}
		}
	}
	return scheduler.OK
}

// For implements scheduler.Filter.
func (b *Binding) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	b.found = nil
	mine := claims(pod, v.Storage())
	if len(mine) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		p, why := b.plan(mine, n, v.Storage())
		if !why.Refuses() && len(p.match)+len(p.provision) > 0 {
			if b.found == nil {
				b.found = map[string]plan{}
			}
			b.found[n.Name] = p
		}
		return why
	}
}

// plan is what to do for a pod's claims on one node.
type plan struct {
	// match are volumes for claims.
	match []match
	// provision are claims for which volumes must be made.
	provision []provision
}

// provision is a claim with the space that its driver says it has for the node; nil
// when it does not say.
type provision struct {
	claim *corev1.PersistentVolumeClaim
	space *storagev1.CSIStorageCapacity
}

type match struct {
	volume *corev1.PersistentVolume
	claim  *corev1.PersistentVolumeClaim
}

const (
	noMatch    = "node(s) didn't find available persistent volumes to bind"
	noAffinity = "node(s) didn't match PersistentVolume's node affinity"
	noSpace    = "node(s) did not have enough free storage"
	noVolume   = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
)

// plan looks for volumes on one node. What is wrong with volumes that are bound, and
// with others, is told together.
func (b *Binding) plan(claims []*corev1.PersistentVolumeClaim, n *scheduler.Node, s scheduler.Storage) (plan, scheduler.Reason) {
	var free []*corev1.PersistentVolumeClaim
	why := ""
	for _, claim := range claims {
		if !bound(claim) {
			free = append(free, claim)
			continue
		}
		if pv := s.Volume(claim.Spec.VolumeName); pv == nil {
			why = cmp.Or(why, noVolume)
		} else if !reaches(pv, n.Node) {
			why = cmp.Or(why, noAffinity)
		}
	}
	p, missing := b.planFree(free, n, s)
	switch {
	case why != "" && missing != "":
		return p, scheduler.Reason{Text: why, More: []string{missing}, Final: true}
	case why+missing != "":
		return p, scheduler.Reason{Text: why + missing, Final: true}
	}
	return p, scheduler.OK
}

// planFree looks for volumes for claims that have none, or says what is missing.
func (b *Binding) planFree(free []*corev1.PersistentVolumeClaim, n *scheduler.Node, s scheduler.Storage) (p plan, missing string) {
	slices.SortStableFunc(free, func(x, y *corev1.PersistentVolumeClaim) int { return size(x).Cmp(*size(y)) })
	chosen := map[string]bool{}
	for _, claim := range free {
		if selected, ok := claim.Annotations[annSelectedNode]; ok {
			if selected != n.Name {
				return p, noMatch
			}
			p.provision = append(p.provision, provision{claim: claim})
			continue
		}
		if pv := b.find(claim, n, s, chosen); pv != nil {
			chosen[pv.Name] = true
			p.match = append(p.match, match{pv, claim})
			continue
		}
		p.provision = append(p.provision, provision{claim: claim})
	}
	for i := range p.provision {
		if missing = provisionable(&p.provision[i], n, s); missing != "" {
			return p, missing
		}
	}
	return p, ""
}

// find returns the smallest free volume that a claim may have on a node, or one
// that is meant for it.
func (b *Binding) find(claim *corev1.PersistentVolumeClaim, n *scheduler.Node, s scheduler.Storage, chosen map[string]bool) *corev1.PersistentVolume {
	var best *corev1.PersistentVolume
	for _, pv := range s.Volumes() {
		if chosen[pv.Name] || pv.DeletionTimestamp != nil || b.promised(pv, claim) || !suits(claim, pv) {
			continue
		}
		if meant(pv, claim) {
			if reaches(pv, n.Node) {
				return pv
			}
			return nil
		}
		if pv.Spec.ClaimRef != nil || pv.Status.Phase != corev1.VolumeAvailable || !reaches(pv, n.Node) {
			continue
		}
		if best == nil || capacity(pv).Cmp(*capacity(best)) < 0 {
			best = pv
		}
	}
	return best
}

// promised says whether another claim has been promised the volume.
func (b *Binding) promised(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	to, ok := b.taken[pv.Name]
	return ok && to != claim.Namespace+"/"+claim.Name
}

// meant says whether the volume names the claim.
func meant(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) bool {
	ref := pv.Spec.ClaimRef
	return ref != nil && ref.Name == claim.Name && ref.Namespace == claim.Namespace && (ref.UID == "" || ref.UID == claim.UID)
}

// suits says whether a volume is what a claim asks for.
func suits(claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) bool {
	if capacity(pv).Cmp(*size(claim)) < 0 || mode(claim.Spec.VolumeMode) != mode(pv.Spec.VolumeMode) {
		return false
	}
	if attributes(claim.Spec.VolumeAttributesClassName) != attributes(pv.Spec.VolumeAttributesClassName) {
		return false
	}
	if meant(pv, claim) {
		return true
	}
	class := pv.Spec.StorageClassName
	if old, ok := pv.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = old
	}
	if class != className(claim) {
		return false
	}
	for _, m := range claim.Spec.AccessModes {
		if !slices.Contains(pv.Spec.AccessModes, m) {
			return false
		}
	}
	if claim.Spec.Selector == nil {
		return true
	}
	selector, err := metav1.LabelSelectorAsSelector(claim.Spec.Selector)
	return err == nil && selector.Matches(labels.Set(pv.Labels))
}

func mode(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

func attributes(name *string) string {
	if name == nil {
		return ""
	}
	return *name
}

// provisionable says why no volume can be made for a claim that a node reaches; else
// it notes the space for it.
func provisionable(p *provision, n *scheduler.Node, s scheduler.Storage) string {
	class := s.Class(className(p.claim))
	if class == nil || class.Provisioner == "" || class.Provisioner == noProvisioner || !allowed(class.AllowedTopologies, n.Labels) {
		return noMatch
	}
	space, enough := enough(p.claim, class, n, s)
	if !enough {
		return noSpace
	}
	p.space = space
	return ""
}

// allowed says whether a class makes volumes for nodes with these labels: one term
// must hold, with all that it asks for.
func allowed(terms []corev1.TopologySelectorTerm, set map[string]string) bool {
	holds := func(t corev1.TopologySelectorTerm) bool {
		for _, e := range t.MatchLabelExpressions {
			if !slices.Contains(e.Values, set[e.Key]) {
				return false
			}
		}
		return len(t.MatchLabelExpressions) > 0
	}
	return len(terms) == 0 || slices.ContainsFunc(terms, holds)
}

// enough says whether a driver that tells its capacity has so much for the node
// (KEP-1472), and where.
func enough(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, n *scheduler.Node, s scheduler.Storage) (*storagev1.CSIStorageCapacity, bool) {
	driver := s.CSIDriver(class.Provisioner)
	if driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return nil, true
	}
	for _, c := range s.Capacities() {
		if c.StorageClassName != class.Name || c.NodeTopology == nil {
			continue
		}
		limit := c.Capacity
		if c.MaximumVolumeSize != nil {
			limit = c.MaximumVolumeSize
		}
		selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
		if err == nil && limit != nil && limit.Cmp(*size(claim)) >= 0 && selector.Matches(labels.Set(n.Labels)) {
			return c, true
		}
	}
	return nil, false
}
