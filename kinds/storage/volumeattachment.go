package storage

import (
	"math"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// The longest name of an attacher and message of a failed attachment, and what an attacher may keep of
// one, in bytes.
const (
	maxAttacher           = 63
	maxVolumeError        = 1024
	maxAttachmentMetadata = 256 << 10
)

// VolumeAttachment is the kind that says that a volume is to be attached to a
// node.
func VolumeAttachment() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"),
		Resource: "volumeattachments",
		Singular: "volumeattachment",
		Storage:  "volumeattachments",
		New:      func() kinds.Object { return &storagev1.VolumeAttachment{} },
		NewList:  func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted:            true,
			ForbidUnconditionalUpdate: true,
			PrepareCreate: kinds.Each(func(a *storagev1.VolumeAttachment) {
				a.Status = storagev1.VolumeAttachmentStatus{}
			}),
			PrepareUpdate:  kinds.Pair(func(a, old *storagev1.VolumeAttachment) { a.Status = old.Status }),
			Validate:       kinds.Check(validateAttachment),
			ValidateUpdate: kinds.CheckUpdate(validateAttachmentUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(volumeAttachmentTexts(), "Name", "Attacher|name", "PV", "Node", "Attached|boolean", "Age"),
			Row: kinds.Row(func(a *storagev1.VolumeAttachment, now time.Time) []any {
				return []any{a.Name, a.Spec.Attacher, kinds.Deref(a.Spec.Source.PersistentVolumeName), a.Spec.NodeName,
					a.Status.Attached, kinds.Created(a, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *storagev1.VolumeAttachment) { next.Status = body.Status }, validateAttachmentUpdate),
		},
	}
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	r := declared.Create()
	declared.Required(r, a, nil, kinds.NewPath("spec").Child("attacher"), func(a *storagev1.VolumeAttachment) string { return a.Spec.Attacher },
		validate.LongNameCaseless[string], //nolint:staticcheck // deprecated for new fields: this is what the field has
		declared.MaxLength[string](maxAttacher))
	return r.Behind(attachment(a))
}

func attachment(a *storagev1.VolumeAttachment) field.ErrorList {
	var f kinds.Faults
	at, source := kinds.NewPath("spec"), &a.Spec.Source
	from := at.Child("source")
	switch {
	case source.InlineVolumeSpec == nil && source.PersistentVolumeName == nil:
		f.Required(from, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
	case source.InlineVolumeSpec != nil && source.PersistentVolumeName != nil:
		f.Forbidden(from, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
	case source.InlineVolumeSpec != nil:
		f.Join(core.ValidateInlineVolumeSpec(source.InlineVolumeSpec, from.Child("inlineVolumeSpec")))
	case *source.PersistentVolumeName == "":
		f.Required(from.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")
	}
	f.Each(at.Child("nodeName"), a.Spec.NodeName, apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false))
	checkAttachmentStatus(&f, &a.Status, kinds.NewPath("status"))
	if name := source.PersistentVolumeName; name != nil {
		f.Each(kinds.NewPath("spec.source.persistentVolumeName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
	return f.List()
}

func checkAttachmentStatus(f *kinds.Faults, s *storagev1.VolumeAttachmentStatus, at *kinds.Path) {
	size := 0
	for key, value := range s.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > maxAttachmentMetadata {
		f.TooLong(at.Child("attachmentMetadata"), maxAttachmentMetadata)
	}
	checkVolumeError(f, s.AttachError, at.Child("attachError"))
	checkVolumeError(f, s.DetachError, at.Child("detachError"))
}

func checkVolumeError(f *kinds.Faults, e *storagev1.VolumeError, at *kinds.Path) {
	if e == nil {
		return
	}
	if len(e.Message) > maxVolumeError {
		f.TooLong(at.Child("message"), maxVolumeError)
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		f.Invalid(at.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32))
	}
}

func validateAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	r := declared.Update()
	if !kinds.Same(a.Spec, old.Spec) {
		r.Immutable(kinds.NewPath("spec"))
	}
	var f kinds.Faults
	f.Join(core.ValidateDriverName(a.Spec.Attacher, kinds.NewPath("spec").Child("attacher")))
	f.Join(attachment(a))
	return r.Behind(f.List())
}
