package resource

import (
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Lengths of generated names: the prefix is cut so that the name stays a label.
const (
	maxGeneratedName = 63
	randomSuffix     = 5
)

// object returns the request's body as an object with metadata.
func (c *call) object() (kinds.Object, error) {
	obj, ok := c.req.Body.(kinds.Object)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%v: %T", errNotObject, c.req.Body))
	}
	obj.GetObjectKind().SetGroupVersionKind(c.gvk())
	return obj, nil
}

// matchNamespace puts obj into the request's namespace, or refuses.
func (c *call) matchNamespace(obj metav1.Object) error {
	want := c.req.Target.Namespace
	if obj.GetNamespace() == want {
		return nil
	}
	if obj.GetNamespace() == "" || want == "" { // what has no namespace loses the one it was sent with
		obj.SetNamespace(want)
		return nil
	}
	return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
}

// matchName refuses a body that names another object than the URL.
func (c *call) matchName(obj metav1.Object) error {
	want := c.req.Target.Name
	switch obj.GetName() {
	case want:
		return nil
	case "":
		obj.SetName(want)
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf(
		"the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), want))
}

// wipe drops what only the server may say of a new object.
func wipe(obj metav1.Object) {
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

// birth fills in what the server says of a new object: who it is, and since when.
func (c *call) birth(obj metav1.Object) {
	wipe(obj)
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(generateName(obj.GetGenerateName()))
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(c.server.now())
}

// now is the wall clock in the API's precision, one second.
func (s *Server) now() metav1.Time { return settledTime(metav1.NewTime(s.cfg.Now())) }

// generateName makes a name from a prefix, as upstream does.
func generateName(base string) string {
	if len(base) > maxGeneratedName-randomSuffix {
		base = base[:maxGeneratedName-randomSuffix]
	}
	return base + rand.String(randomSuffix)
}

// keepIdentity restores in next what an update can never change.
func keepIdentity(next, old metav1.Object) {
	if next.GetUID() == "" {
		next.SetUID(old.GetUID())
	}
	if born := old.GetCreationTimestamp(); !born.IsZero() {
		next.SetCreationTimestamp(born)
	}
	if dying := old.GetDeletionTimestamp(); !dying.IsZero() {
		next.SetDeletionTimestamp(dying)
	}
	if old.GetDeletionGracePeriodSeconds() != nil && next.GetDeletionGracePeriodSeconds() == nil {
		next.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	next.SetSelfLink("")
}

// dedupOwners drops owner references whose UID occurs twice, with a warning.
func (c *call) dedupOwners(obj metav1.Object, text string) {
	owners := obj.GetOwnerReferences()
	if len(owners) < 2 {
		return
	}
	seen := make(map[types.UID]bool, len(owners))
	kept := slices.DeleteFunc(slices.Clone(owners), func(o metav1.OwnerReference) bool {
		twice := seen[o.UID]
		seen[o.UID] = true
		if twice {
			c.req.warn(fmt.Sprintf(text, o.UID))
		}
		return twice
	})
	if len(kept) != len(owners) {
		obj.SetOwnerReferences(kept)
	}
}

const (
	dedupRequest  = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
	dedupAdmitted = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %v"
)

// atMetadata is where an object's metadata are.
var atMetadata = field.NewPath("metadata")

// checkNew validates an object that is to be created: its metadata, then all
// that its kind says.
func (c *call) checkNew(obj kinds.Object) error {
	errs := c.metadata(obj, c.nameRule())
	errs = append(errs, c.finalizers(obj)...)
	if c.kind.Strategy.Validate != nil {
		errs = append(errs, c.kind.Strategy.Validate(obj)...)
	}
	if len(errs) > 0 {
		return invalid(c.blamed(c.kind.GVK), obj.GetName(), errs)
	}
	c.warnings(obj, nil)
	return nil
}

// blamed is the kind that faults are told of: of a kind that is a view of another one
// that other, as upstream, whose rules know no more.
func (c *call) blamed(gvk schema.GroupVersionKind) schema.GroupKind {
	if c.kind.View != nil && gvk == c.kind.GVK {
		return c.kind.View.Stored.GroupKind()
	}
	return gvk.GroupKind()
}

// nameRule is the kind's rule for names.
func (c *call) nameRule() func(name string, prefix bool) []string {
	if f := c.kind.Strategy.ValidateName; f != nil {
		return f
	}
	return subdomain
}

// names checks the names of an object that exists already by the kind's own rule.
func (c *call) names(obj metav1.Object) field.ErrorList {
	var f kinds.Faults
	if prefix := obj.GetGenerateName(); prefix != "" {
		f.Each(kinds.NewPath("metadata").Child("generateName"), prefix, c.nameRule()(prefix, true))
	}
	if name := obj.GetName(); name != "" {
		f.Each(kinds.NewPath("metadata").Child("name"), name, c.nameRule()(name, false))
	}
	return f.List()
}

// finalizers refuses names that the kind does not take.
func (c *call) finalizers(obj metav1.Object) field.ErrorList {
	if c.kind.Custom != nil || c.kind.Strategy.AnyFinalizer {
		return nil
	}
	return kinds.Finalizers(obj.GetFinalizers(), kinds.NewPath("metadata").Child("finalizers"))
}

// checkChange validates an update.
func (c *call) checkChange(next, old kinds.Object) error {
	errs := c.metadata(next, anyName)
	errs = append(errs, validation.ValidateObjectMetaAccessorUpdate(next, old, atMetadata)...)
	if c.sub == nil && c.kind.Strategy.NamesOnUpdate {
		errs = append(errs, c.names(next)...)
	}
	errs = append(errs, c.finalizers(next)...)
	rules := c.kind.Strategy.ValidateUpdate
	if c.sub != nil && c.sub.ValidateUpdate != nil {
		rules = c.sub.ValidateUpdate
	}
	if rules != nil {
		faults, said := kinds.Asides(rules(next, old))
		errs = append(errs, faults...)
		for _, text := range said {
			c.req.warn(text)
		}
	}
	if s := c.kind.Strategy; len(errs) > 0 && len(s.Ratchet) > 0 && s.Validate != nil {
		errs = kinds.Ratchet(errs, s.Validate(old), s.Ratchet)
	}
	if len(errs) > 0 {
		gvk := c.gvk()
		if c.kind.Custom != nil {
			gvk = c.kind.GVK // the paths are those of the object, also through its scale
		}
		return invalid(c.blamed(gvk), next.GetName(), errs)
	}
	if c.sub == nil {
		c.warnings(next, old)
	}
	return nil
}

// anyName is the rule for names of objects that exist already.
func anyName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

func (c *call) warnings(obj, old kinds.Object) {
	if c.kind.Strategy.Warnings == nil {
		return
	}
	for _, text := range c.kind.Strategy.Warnings(obj, old) {
		c.req.warn(text)
	}
}

// unstorable says of which key in the store something cannot be, in upstream's words:
// its keys are ours.
func (c *call) unstorable(name, why string) error {
	return fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: %s",
		c.storage.key(c.req.Target.Namespace, name), why)
}

// checkRevision is the optimistic lock: next must name the revision it is made
// from, or none where the kind allows that. Its UID, if any, must be old's.
func (c *call) checkRevision(next, old kinds.Object) error {
	// Of a patch, validation says that it cannot change the UID.
	if uid := next.GetUID(); uid != "" && uid != old.GetUID() && (c.req.Verb != verbPatch || c.sub != nil) {
		return apierrors.NewConflict(c.gr(), old.GetName(), c.unstorable(old.GetName(),
			fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID())))
	}
	switch next.GetResourceVersion() {
	case old.GetResourceVersion():
		return nil
	case "", "0":
		if !c.kind.Strategy.ForbidUnconditionalUpdate || c.foreign() {
			return nil
		}
		gk := c.kind.GVK.GroupKind()
		gk.Kind = c.kind.Resource
		return apierrors.NewInvalid(gk, old.GetName(), field.ErrorList{field.Invalid(
			field.NewPath("metadata", "resourceVersion"), uint64(0), "must be specified for an update")})
	}
	return apierrors.NewConflict(c.gr(), old.GetName(), errors.New(modified))
}

func (c *call) setDefaults(obj kinds.Object) {
	if c.kind.Strategy.Default != nil {
		c.kind.Strategy.Default(obj)
	}
}
