package flow

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
	base "github.com/sampan-dev/sampan/kinds"
	kinds "github.com/sampan-dev/sampan/kinds/flowcontrol"
)

const (
	// again is the pause after a failed list or watch.
	again = time.Second
	// maintainEvery bounds how often the first objects are put right: upstream
	// looks once a minute.
	maintainEvery = time.Minute
	// maxStatusWrites bounds the writes of one schema's status in a minute, should
	// another server be of another mind.
	maxStatusWrites = 6
)

// Objects are the transports of the two that deal with the configuring objects:
// who makes them, and who reads them and writes their status. Their field
// managers are upstream's: ProducerAgent and ConsumerAgent.
type Objects struct{ Producer, Consumer Transport }

// The agents, and so the field managers, of the two.
const (
	ProducerAgent = "api-priority-and-fairness-config-producer-v1"
	ConsumerAgent = "api-priority-and-fairness-config-consumer-v1"
)

var (
	levelsAt  = target.Of(flowcontrolv1.SchemeGroupVersion.WithResource("prioritylevelconfigurations"), "")
	schemasAt = target.Of(flowcontrolv1.SchemeGroupVersion.WithResource("flowschemas"), "")
)

// follower mirrors the objects and acts on what changes. Its one goroutine owns it.
type follower struct {
	order   *Order
	objects Objects
	levels  map[string]*flowcontrolv1.PriorityLevelConfiguration
	schemas map[string]*flowcontrolv1.FlowSchema
	// maintain is when the first objects may be looked at again.
	maintain time.Time
	wrote    map[string][]time.Time
	// told is the version of each schema whose status has been written: until the
	// watch brings the next one there is nothing to add.
	told map[string]string
}

// follow lists and watches both kinds, again and again, until ctx ends.
func (o *Order) follow(ctx context.Context, objects Objects) error {
	f := &follower{order: o, objects: objects, wrote: map[string][]time.Time{}, told: map[string]string{}}
	for {
		err := f.once(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.cfg.Log.Debug("follow the flow schemas", "error", err)
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

func (f *follower) once(ctx context.Context) error {
	f.levels, f.schemas = map[string]*flowcontrolv1.PriorityLevelConfiguration{}, map[string]*flowcontrolv1.FlowSchema{}
	levels, err := f.open(ctx, levelsAt)
	if err != nil {
		return err
	}
	defer levels.Stop()
	schemas, err := f.open(ctx, schemasAt)
	if err != nil {
		return err
	}
	defer schemas.Stop()
	for {
		later := f.settle(ctx)
		var timer <-chan time.Time
		var stop func() bool
		if later > 0 {
			t := time.NewTimer(later)
			timer, stop = t.C, t.Stop
		}
		err := f.next(ctx, levels, schemas, timer)
		if stop != nil {
			stop()
		}
		if err != nil {
			return err
		}
	}
}

// open lists one kind and watches it from there.
func (f *follower) open(ctx context.Context, at target.Target) (watch.Interface, error) {
	list, err := f.objects.Consumer.List(ctx, at, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if err := meta.EachListItem(list, func(obj runtime.Object) error { f.put(obj, false); return nil }); err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	return f.objects.Consumer.Watch(ctx, at, metav1.ListOptions{ResourceVersion: m.GetResourceVersion()})
}

// next takes one event, and those that are there already.
func (f *follower) next(ctx context.Context, levels, schemas watch.Interface, timer <-chan time.Time) error {
	var e watch.Event
	var ok bool
	select {
	case e, ok = <-levels.ResultChan():
	case e, ok = <-schemas.ResultChan():
	case <-timer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		if !ok || e.Type == watch.Error {
			return errors.New("watch ended")
		}
		f.put(e.Object, e.Type == watch.Deleted)
		select {
		case e, ok = <-levels.ResultChan():
		case e, ok = <-schemas.ResultChan():
		default:
			return nil
		}
	}
}

func (f *follower) put(obj runtime.Object, gone bool) {
	switch o := obj.(type) {
	case *flowcontrolv1.PriorityLevelConfiguration:
		if delete(f.levels, o.Name); !gone {
			f.levels[o.Name] = o
		}
	case *flowcontrolv1.FlowSchema:
		if delete(f.schemas, o.Name); !gone {
			f.schemas[o.Name] = o
			return
		}
		delete(f.told, o.Name)
		delete(f.wrote, o.Name)
	}
}

// settle makes the plan, tells schemas whether their level exists, and puts the
// first objects right. It returns when it wants to be called again though nothing
// happens; 0: not.
func (f *follower) settle(ctx context.Context) time.Duration {
	levels := make([]*flowcontrolv1.PriorityLevelConfiguration, 0, len(f.levels))
	for _, l := range f.levels {
		levels = append(levels, l)
	}
	schemas := make([]*flowcontrolv1.FlowSchema, 0, len(f.schemas))
	for _, s := range f.schemas {
		schemas = append(schemas, s)
	}
	f.order.digest(levels, schemas)
	later := f.maintainAll(ctx)
	for _, s := range schemas {
		if wait := f.tell(ctx, s); wait > 0 && (later == 0 || wait < later) {
			later = wait
		}
	}
	return later
}

// tell writes into a schema's status whether its level exists.
func (f *follower) tell(ctx context.Context, s *flowcontrolv1.FlowSchema) time.Duration {
	name := s.Spec.PriorityLevelConfiguration.Name
	want := flowcontrolv1.FlowSchemaCondition{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse,
		Reason: "Found", Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", name)}
	if f.levels[name] == nil && !mandatoryLevel(name) {
		want.Status, want.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		want.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", name)
	}
	at := -1
	for i, c := range s.Status.Conditions {
		if c.Type == want.Type {
			if c.Status == want.Status && c.Reason == want.Reason && c.Message == want.Message {
				return 0
			}
			at = i
		}
	}
	if f.told[s.Name] == s.ResourceVersion {
		return 0
	}
	now := f.order.cfg.Now()
	lately := f.wrote[s.Name][:0]
	for _, t := range f.wrote[s.Name] {
		if now.Sub(t) < time.Minute {
			lately = append(lately, t)
		}
	}
	if f.wrote[s.Name] = lately; len(lately) >= maxStatusWrites {
		return time.Minute
	}
	f.wrote[s.Name], f.told[s.Name] = append(lately, now), s.ResourceVersion
	want.LastTransitionTime = metav1.NewTime(now)
	next := s.DeepCopy()
	if at < 0 {
		next.Status.Conditions = append(next.Status.Conditions, want)
	} else {
		next.Status.Conditions[at] = want
	}
	_, err := f.objects.Consumer.Update(ctx, schemasAt.Object(s.Name).Sub("status"), next, metav1.UpdateOptions{})
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		f.order.cfg.Log.Warn("write a flow schema's status", "schema", s.Name, "error", err)
		delete(f.told, s.Name)
		return again
	}
	return 0 // after a conflict the watch brings the newer one
}

func mandatoryLevel(name string) bool {
	return name == flowcontrolv1.PriorityLevelConfigurationNameExempt || name == flowcontrolv1.PriorityLevelConfigurationNameCatchAll
}

// maintainAll makes the first objects, brings those up to date that say so, and
// removes what former versions made and this one does not. When something was to
// be done too soon after the last time, it says how long to wait.
func (f *follower) maintainAll(ctx context.Context) time.Duration {
	todo := f.repairs()
	if len(todo) == 0 {
		return 0
	}
	if wait := f.maintain.Sub(f.order.cfg.Now()); wait > 0 {
		return wait
	}
	f.maintain = f.order.cfg.Now().Add(maintainEvery)
	for _, r := range todo {
		if err := r.do(ctx, f.objects.Producer); err != nil && ctx.Err() == nil {
			f.order.cfg.Log.Debug("maintain flow control", "object", r.at.String(), "error", err)
			f.maintain = f.order.cfg.Now().Add(again)
		}
	}
	return 0 // the watch brings what was done
}

// repair is one write that puts a first object right: obj nil deletes.
type repair struct {
	at  target.Target
	obj base.Object
	new bool
}

func (r repair) do(ctx context.Context, by Transport) (err error) {
	switch {
	case r.obj == nil:
		err = by.Delete(ctx, r.at, metav1.DeleteOptions{})
	case r.new:
		_, err = by.Create(ctx, target.Of(r.at.Resource, ""), r.obj, metav1.CreateOptions{})
	default:
		_, err = by.Update(ctx, r.at, r.obj, metav1.UpdateOptions{})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// repairs compares what there is with what there should be.
func (f *follower) repairs() (todo []repair) {
	known := map[target.Target]bool{}
	for _, set := range []struct {
		kinds.Objects
		always bool
	}{{kinds.Suggested(), false}, {kinds.Mandatory(), true}} {
		for _, want := range set.Levels {
			at, have := levelsAt.Object(want.Name), f.levels[want.Name]
			known[at] = true
			if have == nil {
				todo = append(todo, repair{at, want, true})
				continue
			}
			next := have.DeepCopy()
			if revise(next, set.always, !base.Same(aligned(want, have).Spec, have.Spec)) {
				next.Spec = aligned(want, have).Spec
			} else if sameNote(next, have) {
				continue
			}
			todo = append(todo, repair{at, next, false})
		}
		for _, want := range set.Schemas {
			at, have := schemasAt.Object(want.Name), f.schemas[want.Name]
			known[at] = true
			if have == nil {
				todo = append(todo, repair{at, want, true})
				continue
			}
			next := have.DeepCopy()
			if revise(next, set.always, !base.Same(want.Spec, have.Spec)) {
				next.Spec = want.Spec
			} else if sameNote(next, have) {
				continue
			}
			todo = append(todo, repair{at, next, false})
		}
	}
	return append(todo, f.former(known)...)
}

// former are objects that a server made and maintains, and this one does not know.
func (f *follower) former(known map[target.Target]bool) (todo []repair) {
	made := func(obj metav1.Object) bool {
		yes, err := strconv.ParseBool(obj.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
		return err == nil && yes
	}
	for name, s := range f.schemas {
		if at := schemasAt.Object(name); made(s) && !known[at] {
			todo = append(todo, repair{at: at})
		}
	}
	for name, l := range f.levels {
		if at := levelsAt.Object(name); made(l) && !known[at] {
			todo = append(todo, repair{at: at})
		}
	}
	return todo
}

// aligned is what a level should be: of the exempt one the shares are the
// administrator's.
func aligned(want, have *flowcontrolv1.PriorityLevelConfiguration) *flowcontrolv1.PriorityLevelConfiguration {
	if want.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt && have.Spec.Exempt != nil {
		want = want.DeepCopy()
		want.Spec.Exempt = have.Spec.Exempt
	}
	return want
}

// revise notes on an object whether it is kept up to date, and says whether its
// spec is to be replaced. Without a note, an object that nobody has changed is.
func revise(obj metav1.Object, always, differs bool) bool {
	kept := always
	note, err := strconv.ParseBool(obj.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
	if !always {
		kept = note
		if err != nil {
			kept = obj.GetGeneration() == 1
		}
	}
	if err != nil || note != kept {
		notes := map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: strconv.FormatBool(kept)}
		for k, v := range obj.GetAnnotations() {
			if k != flowcontrolv1.AutoUpdateAnnotationKey {
				notes[k] = v
			}
		}
		obj.SetAnnotations(notes)
	}
	return kept && differs
}

func sameNote(a, b metav1.Object) bool {
	return a.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey] == b.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]
}
