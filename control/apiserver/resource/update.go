package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// maxEdits bounds how often one write is tried again because others were faster.
// Each lost round is a round somebody won.
const maxEdits = 1000

// edit is how an object is to change.
type edit struct {
	// next makes the wanted object of old, which is shared and nil when there is
	// none; the result is the edit's own. It is called again for each try.
	next func(old kinds.Object) (kinds.Object, error)
	// create allows next to make an object that is not there yet.
	create bool
	// tracked says that next has written down the owners of the fields itself.
	tracked bool
}

// errAgain says that a try was made from an object that is no longer the latest.
var errAgain = errors.New("try again from the latest version")

// update replaces an object, or the part of it that a subresource is.
func (c *call) update(ctx context.Context) (*answer, error) {
	if errs := validation.ValidateUpdateOptions(&c.req.Update); len(errs) > 0 {
		return nil, badOptions("UpdateOptions", errs)
	}
	body, err := c.object()
	if err != nil {
		return nil, err
	}
	if err := c.matchNamespace(body); err != nil {
		return nil, err
	}
	if body.GetName() == "" { // or whoever sends an empty object would wipe the one there is
		return nil, c.nameless()
	}
	if err := c.matchName(body); err != nil {
		return nil, err
	}
	if c.sub == nil {
		c.dedupOwners(body, dedupRequest)
	}
	return c.edit(ctx, edit{
		create: c.kind.Strategy.CreateOnUpdate && c.sub == nil,
		next: func(kinds.Object) (kinds.Object, error) {
			next := body.DeepCopyObject().(kinds.Object)
			if !c.foreign() {
				c.setDefaults(next)
			}
			return next, nil
		},
	})
}

// nameless is 400 for an object that does not say which one it is.
func (c *call) nameless() error {
	return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", c.req.Target.Name))
}

// edit changes an object by compare-and-swap. The cached copy is tried first; a
// failure that the latest version may not have is never told. If the cached copy
// turns out to be the latest version, nothing is tried again: as upstream, so that
// webhooks are asked once.
func (c *call) edit(ctx context.Context, e edit) (*answer, error) {
	t := c.req.Target
	cur, latest := c.storage.base(ctx, t.Namespace, t.Name), false
	var tried int64 // the revision of the cached copy that failure is about
	var failure error
	for range maxEdits {
		if cur == nil {
			var err error
			cur, err = c.storage.read(ctx, t.Namespace, t.Name)
			if err != nil && !missing(err) {
				return nil, c.failed(err)
			}
			latest = true
			if cur != nil && failure != nil && cur.revision == tried {
				return nil, c.failed(failure)
			}
		}
		attempt, done := withOutcome(ctx)
		out, err := c.try(attempt, e, cur, latest)
		done(err)
		switch {
		case err == nil:
			return out, nil
		case errors.Is(err, errAgain) || !latest && retriable(err):
			tried, failure = 0, nil
			if !latest && !errors.Is(err, errAgain) {
				tried, failure = cur.revision, err
			}
			cur = nil
			if ctx.Err() != nil {
				return nil, c.failed(context.Cause(ctx))
			}
			continue
		}
		return nil, c.failed(err)
	}
	return nil, c.failed(store.ErrConflict)
}

// retriable says whether a failure may be due to an old cached copy.
func retriable(err error) bool {
	return !errors.Is(err, store.ErrTooLarge) && !errors.Is(err, store.ErrClosed)
}

// try makes one attempt from cur, which is nil when there is no such object. The
// order is upstream's: the wanted object, its owners, admission, the optimistic
// lock, the kind's own rules, validation, admission's last word.
func (c *call) try(ctx context.Context, e edit, cur *record, latest bool) (*answer, error) {
	if cur == nil {
		return c.tryCreate(ctx, e)
	}
	old := c.show(cur.obj)
	before, err := c.face(old)
	if err != nil {
		return nil, err
	}
	body, err := e.next(before)
	if err != nil {
		return nil, err
	}
	if !latest && c.checkRevision(body, old) != nil {
		return nil, errAgain // the client has seen a later version: nobody need be asked about this one
	}
	if !e.tracked {
		c.track(body, before)
	}
	if err := c.admit(ctx, c.attributes(OpUpdate, body, before)); err != nil {
		return nil, err
	}
	if err := c.matchNamespace(body); err != nil {
		return nil, err
	}
	if !c.foreign() {
		c.dedupOwners(body, dedupAdmitted)
		c.setDefaults(body)
	}
	if err := c.checkRevision(body, old); err != nil {
		return nil, err
	}
	next, err := c.prepareChange(body, old)
	if err != nil {
		return nil, err
	}
	finish, err := c.beginChange(ctx, next, old)
	if err != nil {
		return nil, err
	}
	stored := false
	defer func() { finish(stored) }()
	if err := c.checkChange(next, old); err != nil {
		return nil, err
	}
	if err := c.judgeChange(ctx, next, old, before); err != nil {
		return nil, err
	}
	if released(c.kind, next, old) {
		return c.release(ctx, cur, next)
	}
	out, err := c.write(ctx, cur, next, latest)
	stored = err == nil
	return out, err
}

// prepareChange makes what is to be stored of the admitted body: the body itself
// under the kind's rules for updates, or old with the part that the subresource is.
// It changes body, not old.
func (c *call) prepareChange(body, old kinds.Object) (kinds.Object, error) {
	if c.sub != nil {
		return c.takePart(body, old)
	}
	body.SetResourceVersion(old.GetResourceVersion())
	body.SetGeneration(old.GetGeneration())
	if prepare := c.kind.Strategy.PrepareUpdate; prepare != nil {
		prepare(body, old)
	}
	keepIdentity(body, old)
	return body, nil
}

// takePart copies the part of body that the subresource is over to a copy of old.
func (c *call) takePart(body, old kinds.Object) (kinds.Object, error) {
	if c.sub.Copy == nil {
		return nil, apierrors.NewMethodNotSupported(c.gr(), c.req.Verb)
	}
	next := old.DeepCopyObject().(kinds.Object)
	if err := c.sub.Copy(next, body); err != nil {
		return nil, asBadRequest(err)
	}
	if err := c.passOwners(next, body, old); err != nil {
		return nil, err
	}
	next.SetResourceVersion(old.GetResourceVersion())
	keepIdentity(next, old)
	return next, nil
}

func asBadRequest(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}

// beginChange lets the kind's hook take part.
func (c *call) beginChange(ctx context.Context, next, old kinds.Object) (finish func(bool), err error) {
	begin := c.hook().BeginUpdate
	if begin == nil || c.sub != nil {
		return func(bool) {}, nil
	}
	finish, err = begin(ctx, next, old, c.req.dryRun())
	if finish == nil {
		finish = func(bool) {}
	}
	return finish, err
}

// judgeChange asks the judging half of admission about the object, or about the
// subresource's own kind, as the client speaks of it.
func (c *call) judgeChange(ctx context.Context, next, old, before kinds.Object) error {
	if !c.foreign() {
		return c.validate(ctx, c.attributes(OpUpdate, next, old))
	}
	after, err := c.face(next)
	if err != nil {
		return err
	}
	return c.validate(ctx, c.attributes(OpUpdate, after, before))
}

// tryCreate lets a PUT or an apply make the object.
func (c *call) tryCreate(ctx context.Context, e edit) (*answer, error) {
	if !e.create {
		return nil, apierrors.NewNotFound(c.gr(), c.req.Target.Name)
	}
	next, err := e.next(nil)
	if err != nil {
		return nil, err
	}
	if err := c.authorize(ctx, verbCreate); err != nil {
		return nil, err
	}
	if uid := next.GetUID(); uid != "" {
		if c.req.Verb == verbUpdate {
			return nil, apierrors.NewConflict(c.gr(), next.GetName(), c.unstorable(next.GetName(),
				fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: ", uid)))
		}
		return nil, apierrors.NewConflict(c.gr(), next.GetName(), errors.New(
			"uid mismatch: the provided object specified uid "+string(uid)+", and no existing object was found"))
	}
	// A PUT makes the object whatever revision it names, as upstream.
	if rv := next.GetResourceVersion(); rv != "" && rv != "0" && c.req.Verb != verbUpdate {
		return nil, apierrors.NewConflict(c.gr(), next.GetName(), errors.New(modified))
	}
	next.SetResourceVersion("")
	if err := c.prepareNew(ctx, next, !e.tracked); err != nil {
		return nil, err
	}
	stored, err := c.bear(ctx, next)
	if apierrors.IsAlreadyExists(err) {
		return nil, errAgain
	}
	if err != nil {
		return nil, err
	}
	return c.done(http.StatusCreated, stored), nil
}

// write swaps cur for next unless they are the same.
func (c *call) write(ctx context.Context, cur *record, next kinds.Object, latest bool) (*answer, error) {
	held := c.stored(next)
	before, stale, err := c.storage.bytes(cur)
	if err != nil {
		return nil, err
	}
	after, err := c.changed(ctx, held, cur.obj, before)
	if err != nil {
		return nil, err
	}
	if after == nil && !stale {
		if !latest && !c.isLatest(ctx, cur) {
			return nil, errAgain // the cache is behind: only the store knows that nothing changes
		}
		setRevision(next, cur.revision)
		next.SetManagedFields(held.GetManagedFields())
		return c.done(http.StatusOK, next), nil
	}
	if after == nil {
		after = before
	}
	next.SetManagedFields(held.GetManagedFields())
	if c.req.dryRun() {
		setRevision(next, cur.revision)
		return c.done(http.StatusOK, next), nil
	}
	is := changedObject
	if c.settled && bytes.HasPrefix(before, protoPrefix) { // JSON keeps what protobuf does not
		is = settledObject
	}
	revision, err := c.swap(ctx, cur, held, is, after)
	if errors.Is(err, store.ErrConflict) || missing(err) {
		return nil, errAgain
	}
	if err != nil {
		return nil, err
	}
	setRevision(next, revision)
	return c.done(http.StatusOK, next), nil
}

// isLatest asks the store whether cur is the latest version of its object.
func (c *call) isLatest(ctx context.Context, cur *record) bool {
	now, err := c.storage.read(ctx, cur.obj.GetNamespace(), cur.obj.GetName())
	return err == nil && now.revision == cur.revision
}

// changed gives the bytes of next, or nil when they are those of old. Times in
// the record of field owners alone are no change: next then keeps old's.
func (c *call) changed(ctx context.Context, next, old kinds.Object, before []byte) ([]byte, error) {
	after, err := c.server.codec.store(ctx, next, c.storage.kind)
	if err != nil || bytes.Equal(after, before) {
		return nil, err
	}
	owners, was := next.GetManagedFields(), old.GetManagedFields()
	if !sameOwners(owners, was) || sameRecord(owners, was) { // it is not the times that differ, or not they alone
		return after, nil
	}
	next.SetManagedFields(was)
	same, err := c.server.codec.store(ctx, next, c.storage.kind)
	if err != nil || bytes.Equal(same, before) {
		return nil, err
	}
	next.SetManagedFields(owners)
	return after, nil
}

func (c *call) swap(ctx context.Context, cur *record, held kinds.Object, is news, plain []byte) (int64, error) {
	key := c.storage.key(held.GetNamespace(), held.GetName())
	value, err := c.storage.sealBytes(key, plain)
	if errors.Is(err, store.ErrTooLarge) && len(held.GetManagedFields()) > 0 {
		held.SetManagedFields(nil)
		value, err = c.storage.sealed(ctx, key, held)
	}
	if err != nil {
		return 0, err
	}
	return c.storage.replace(ctx, held, is, value, cur.revision)
}

// sameOwners compares records of field owners, times aside.
func sameOwners(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if x.Manager != y.Manager || x.Operation != y.Operation || x.APIVersion != y.APIVersion ||
			x.Subresource != y.Subresource || x.FieldsType != y.FieldsType || x.FieldsV1.GetRawString() != y.FieldsV1.GetRawString() {
			return false
		}
	}
	return true
}
