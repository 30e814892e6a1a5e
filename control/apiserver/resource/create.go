package resource

import (
	"context"
	"errors"
	"net/http"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/kinds"
)

// maxGeneratedNames is how many names are tried when a generated one is taken.
const maxGeneratedNames = 8

// create stores a new object, or hands the request to who answers for its
// subresource or virtual kind.
func (c *call) create(ctx context.Context) (*answer, error) {
	if errs := validation.ValidateCreateOptions(&c.req.Create); len(errs) > 0 {
		return nil, badOptions("CreateOptions", errs)
	}
	switch {
	case c.sub != nil:
		return c.subcreate(ctx)
	case c.storage == nil:
		return c.virtual(ctx)
	}
	obj, err := c.object()
	if err != nil {
		return nil, err
	}
	if err := c.matchNamespace(obj); err != nil {
		return nil, err
	}
	if err := c.prepareNew(ctx, obj, true); err != nil {
		return nil, err
	}
	stored, err := c.bear(ctx, obj)
	if err != nil {
		return nil, err
	}
	return c.done(http.StatusCreated, stored), nil
}

// prepareNew takes a new object from the client's form to the admitted one, in
// upstream's order: what admission sees has no name of the server's making yet,
// and its status is still the client's. track is false when server-side apply
// has already written down the owners.
func (c *call) prepareNew(ctx context.Context, obj kinds.Object, track bool) error {
	c.dedupOwners(obj, dedupRequest)
	c.setDefaults(obj)
	wipe(obj)
	if track {
		c.track(obj, nil)
	}
	if err := c.admit(ctx, c.attributes(OpCreate, obj, nil)); err != nil {
		return err
	}
	if err := c.matchNamespace(obj); err != nil {
		return err
	}
	c.dedupOwners(obj, dedupAdmitted)
	c.setDefaults(obj)
	return nil
}

// bear completes, validates and stores an admitted object, and returns what was
// stored. A generated name that is taken is tried again, with another name.
func (c *call) bear(ctx context.Context, admitted kinds.Object) (kinds.Object, error) {
	generated := admitted.GetName() == "" && admitted.GetGenerateName() != ""
	begin := c.server.cfg.Now()
	for tries := 1; ; tries++ {
		obj := admitted
		if generated {
			obj = admitted.DeepCopyObject().(kinds.Object)
		}
		c.birth(obj)
		err := c.bearOnce(ctx, obj)
		if err == nil {
			c.mark(obj, begin)
			return obj, nil
		}
		taken := errors.Is(err, store.ErrExists)
		switch {
		case taken && generated && tries < maxGeneratedNames:
			continue
		case taken && generated:
			return nil, apierrors.NewGenerateNameConflict(c.gr(), obj.GetName(), 1)
		case taken:
			return nil, c.taken(ctx, obj)
		}
		return nil, interpret(err, c.gr(), obj.GetName())
	}
}

func (c *call) bearOnce(ctx context.Context, obj kinds.Object) (err error) {
	ctx, done := withOutcome(ctx)
	defer func() { done(err) }()
	// A strategy may write name and UID into the specification, as a Job's does.
	if prepare := c.kind.Strategy.PrepareCreate; prepare != nil {
		prepare(obj)
	}
	dry := c.req.dryRun()
	finish := func(bool) {}
	if begin := c.hook().BeginCreate; begin != nil {
		f, err := begin(ctx, obj, dry)
		if err != nil {
			return err
		}
		if f != nil {
			finish = f
		}
	}
	defer func() { finish(err == nil) }()
	if err := c.checkNew(obj); err != nil {
		return err
	}
	if err := c.validate(ctx, c.attributes(OpCreate, obj, nil)); err != nil {
		return err
	}
	if dry {
		return c.vacant(ctx, obj)
	}
	return c.insert(ctx, obj)
}

// insert stores obj; should only the record of field owners make it too large,
// it is stored without. As upstream, only here, after whoever may refuse it, does it
// matter that the object claims to be in the store.
func (c *call) insert(ctx context.Context, obj kinds.Object) error {
	if rv := obj.GetResourceVersion(); rv != "" && rv != "0" {
		return plainStatus(http.StatusInternalServerError, metav1.StatusReasonUnknown,
			"resourceVersion should not be set on objects to be created")
	}
	obj.SetResourceVersion("")
	put := func() error {
		held := c.stored(obj)
		if err := c.storage.create(ctx, held); err != nil {
			return err
		}
		obj.SetResourceVersion(held.GetResourceVersion())
		return nil
	}
	err := put()
	if errors.Is(err, store.ErrTooLarge) && len(obj.GetManagedFields()) > 0 {
		obj.SetManagedFields(nil)
		return put()
	}
	return err
}

// vacant fails when obj's key is taken: what a dry run can know.
func (c *call) vacant(ctx context.Context, obj kinds.Object) error {
	_, _, err := c.server.cfg.Store.Get(ctx, c.storage.key(obj.GetNamespace(), obj.GetName()))
	switch {
	case err == nil:
		return store.ErrExists
	case missing(err):
		return nil
	}
	return err
}

// taken says that the name is in use, and whether its owner is on its way out.
func (c *call) taken(ctx context.Context, obj kinds.Object) error {
	err := apierrors.NewAlreadyExists(c.gr(), obj.GetName())
	old, readErr := c.storage.read(ctx, obj.GetNamespace(), obj.GetName())
	if readErr == nil && old.obj.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// mark tells the timeline of a pod's first three stations.
func (c *call) mark(obj kinds.Object, admitted time.Time) {
	if c.server.cfg.Timeline == nil || c.kind.Storage != "pods" || c.req.dryRun() {
		return
	}
	uid, end := string(obj.GetUID()), c.server.cfg.Now()
	received := c.req.Received
	if received.IsZero() {
		received = admitted
	}
	c.server.cfg.Timeline.Mark(uid, timeline.Mark{
		Step: timeline.Request, Name: "received", Detail: c.req.User.Name, Start: received, End: received})
	c.server.cfg.Timeline.Mark(uid, timeline.Mark{
		Step: timeline.Admit, Name: "authorise and admit", Start: received, End: admitted})
	c.server.cfg.Timeline.Mark(uid, timeline.Mark{
		Step: timeline.Store, Name: "validate and store", Detail: "revision " + obj.GetResourceVersion(), Start: admitted, End: end})
}

// subcreate answers a POST to a subresource.
func (c *call) subcreate(ctx context.Context) (*answer, error) {
	f, ok := c.server.subs[c.kind.Resource+"/"+c.sub.Name]
	if !ok {
		return nil, apierrors.NewMethodNotSupported(c.gr(), verbCreate)
	}
	if obj, ok := c.req.Body.(kinds.Object); ok {
		if err := c.matchNamespace(obj); err != nil {
			return nil, err
		}
		if c.sub.Default != nil {
			c.sub.Default(obj)
		}
		if c.req.wire && c.server.cfg.Subcreate[c.kind.Resource+"/"+c.sub.Name] != nil {
			c.track(obj, nil) // for whom it goes back to; those built in answer with a Status
		}
		if err := c.admitSub(ctx, obj); err != nil {
			return nil, err
		}
	}
	out, err := f(ctx, c.req)
	if err != nil {
		return nil, c.failed(err)
	}
	return &answer{code: http.StatusCreated, object: c.named(out)}, nil
}

// named is an answer with its kind and version, which whoever made it, or sent what it
// was made of, may have left out.
func (c *call) named(out runtime.Object) runtime.Object {
	kind := out.GetObjectKind()
	if gvk := kind.GroupVersionKind(); gvk.Kind == "" || gvk.Version == "" {
		kind.SetGroupVersionKind(c.gvk())
	}
	return out
}

// admitSub shows the body of a POST to a subresource to both halves of admission.
func (c *call) admitSub(ctx context.Context, obj kinds.Object) error {
	a := c.attributes(OpCreate, obj, nil)
	if err := c.admit(ctx, a); err != nil {
		return err
	}
	return c.validate(ctx, a)
}

// virtual answers a create of a kind that is never stored.
func (c *call) virtual(ctx context.Context) (*answer, error) {
	f, ok := c.server.virtuals[c.gvr]
	if !ok {
		return nil, apierrors.NewMethodNotSupported(c.gr(), verbCreate)
	}
	if obj, ok := c.req.Body.(kinds.Object); ok {
		if err := c.acceptVirtual(ctx, obj); err != nil {
			return nil, err
		}
	}
	out, err := f(ctx, c.req)
	if err != nil {
		return nil, c.failed(err)
	}
	return &answer{code: http.StatusCreated, object: c.named(out)}, nil
}

// acceptVirtual completes, validates and admits what is answered but not stored.
func (c *call) acceptVirtual(ctx context.Context, obj kinds.Object) error {
	if err := c.matchNamespace(obj); err != nil {
		return err
	}
	c.setDefaults(obj)
	if c.req.wire { // nobody in this process looks whose the fields are
		c.track(obj, nil)
	}
	if c.kind.Strategy.Validate != nil {
		if errs := c.kind.Strategy.Validate(obj); len(errs) > 0 {
			gk, name := c.kind.GVK.GroupKind(), obj.GetName()
			if gk.Group == authorizationv1.GroupName {
				gk.Kind, name = "", "" // upstream's reviews of access do not say which they are
			}
			return invalid(gk, name, errs)
		}
	}
	return c.admitSub(ctx, obj)
}

// badOptions refuses a request's options, all mistakes at once.
func badOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}
