package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/kinds"
	definition "github.com/sampan-dev/sampan/kinds/apiextensions"
)

// retry is how long a definition that could not be served or ended waits.
var retry = backoff.Policy{Min: time.Second, Max: time.Minute, Jitter: 0.3}

// keeper is Run's own state: one goroutine owns it.
type keeper struct {
	*Definitions
	objects Objects
	table   Table
	// builtIn are the resources that definitions must leave alone.
	builtIn map[schema.GroupVersionResource]bool
	all     map[string]*apiextensionsv1.CustomResourceDefinition
	served  map[string]*family
	// busy are the definitions whose objects are being deleted right now.
	busy     map[string]bool
	failures map[string]int
	again    chan string
	ended    chan outcome
}

// outcome is how the ending of a definition's objects went.
type outcome struct {
	name string
	err  error
}

// Run follows the definitions until ctx ends. objects is the server as a client of
// its own, table what it serves.
func (d *Definitions) Run(ctx context.Context, objects Objects, table Table) error {
	k := &keeper{
		Definitions: d, objects: objects, table: table,
		builtIn:  map[schema.GroupVersionResource]bool{},
		served:   map[string]*family{},
		busy:     map[string]bool{},
		failures: map[string]int{},
		again:    make(chan string),
		ended:    make(chan outcome),
	}
	for _, row := range table.Kinds() {
		if row.Custom == nil {
			k.builtIn[row.GVR()] = true
		}
	}
	for failures := 1; ; failures++ {
		err := k.follow(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		delay := retry.After(min(failures, 3))
		d.cfg.Log.Warn("follow the custom resource definitions", "error", err, "again_in", delay)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// follow lists and watches until the watch ends.
func (k *keeper) follow(ctx context.Context) error {
	list, err := k.objects.List(ctx, definitions, metav1.ListOptions{})
	if err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	k.all = map[string]*apiextensionsv1.CustomResourceDefinition{}
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		def, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
		if !ok {
			return fmt.Errorf("list of definitions holds a %T", obj)
		}
		k.all[def.Name] = def
		return nil
	})
	if err != nil {
		return err
	}
	k.everything(ctx)
	w, err := k.objects.Watch(ctx, definitions, metav1.ListOptions{ResourceVersion: accessor.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("watch ended")
			}
			if err := k.see(ctx, e); err != nil {
				return err
			}
		case name := <-k.again:
			k.reconcile(ctx, name)
		case o := <-k.ended:
			delete(k.busy, o.name)
			k.settle(ctx, o.name, o.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// everything looks at all definitions, and at those served that are gone. What was
// established is served before anything else is decided.
func (k *keeper) everything(ctx context.Context) {
	for _, f := range k.served {
		if k.all[f.def.Name] == nil {
			k.drop(f.def.Name)
		}
	}
	for _, def := range k.all {
		if err := k.serve(def); err != nil {
			k.cfg.Log.Error("serve a custom resource definition", "name", def.Name, "error", err)
		}
	}
	select {
	case <-k.synced:
	default:
		close(k.synced)
	}
	for name := range k.all {
		k.reconcile(ctx, name)
	}
}

// see takes one event of the watch. An event from before the state that is known
// says nothing new.
func (k *keeper) see(ctx context.Context, e watch.Event) error {
	if e.Type == watch.Bookmark {
		return nil
	}
	def, ok := e.Object.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return fmt.Errorf("watch event %s with a %T", e.Type, e.Object)
	}
	if have := k.all[def.Name]; have != nil && revision(have) > revision(def) {
		return nil
	}
	if e.Type != watch.Deleted {
		k.all[def.Name] = def
		k.reconcile(ctx, def.Name)
		return nil
	}
	delete(k.all, def.Name)
	delete(k.failures, def.Name)
	k.drop(def.Name)
	k.neighbours(ctx, def)
	return nil
}

func revision(d *apiextensionsv1.CustomResourceDefinition) int64 {
	n, _ := strconv.ParseInt(d.ResourceVersion, 10, 64) // the server's own: a number
	return n
}

// neighbours looks at the other definitions of a group, one of which has let go of
// names or taken some.
func (k *keeper) neighbours(ctx context.Context, of *apiextensionsv1.CustomResourceDefinition) {
	var names []string
	for name, d := range k.all {
		if d.Spec.Group == of.Spec.Group && name != of.Name && !kinds.Same(d.Spec.Names, d.Status.AcceptedNames) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		k.reconcile(ctx, name)
	}
}

// reconcile brings one definition on: serves it, tells its status, ends it.
func (k *keeper) reconcile(ctx context.Context, name string) {
	def := k.all[name]
	if def == nil {
		return
	}
	k.settle(ctx, name, k.step(ctx, def))
}

// settle arranges for another try of what failed.
func (k *keeper) settle(ctx context.Context, name string, err error) {
	if err == nil || ctx.Err() != nil {
		delete(k.failures, name)
		return
	}
	k.failures[name]++
	delay := retry.After(k.failures[name])
	k.cfg.Log.Warn("custom resource definition", "name", name, "error", err, "again_in", delay)
	time.AfterFunc(delay, func() {
		select {
		case k.again <- name:
		case <-ctx.Done():
		}
	})
}

func (k *keeper) step(ctx context.Context, def *apiextensionsv1.CustomResourceDefinition) error {
	if err := k.serve(def); err != nil {
		return err
	}
	next, renamed := k.judge(def)
	if next != nil {
		written, err := k.tell(ctx, next)
		if written == nil || err != nil {
			return err
		}
		k.all[def.Name] = written
		if renamed {
			k.neighbours(ctx, written)
		}
		return nil // the watch brings what was written, and with it the next step
	}
	if def.DeletionTimestamp != nil && slices.Contains(def.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) && !k.busy[def.Name] {
		k.busy[def.Name] = true
		e := ending{keeper: k, def: def.DeepCopy(), hub: k.hubOf(def.Name)}
		go e.run(ctx)
	}
	return nil
}

// judge gives the definition with the status that it should have; nil when it has
// it. renamed says that its names have changed.
func (k *keeper) judge(def *apiextensionsv1.CustomResourceDefinition) (next *apiextensionsv1.CustomResourceDefinition, renamed bool) {
	next = def.DeepCopy()
	if !kinds.Same(def.Spec.Names, def.Status.AcceptedNames) {
		names, said := accept(def, takenIn(def.Spec.Group, k.all))
		renamed = !kinds.Same(names, def.Status.AcceptedNames)
		if renamed || !same(definition.Condition(def, said[0].Type), &said[0]) {
			next.Status.AcceptedNames = names
			k.set(next, said...)
		}
	} else if k.served[def.Name] != nil && definition.True(def, apiextensionsv1.NamesAccepted) && !definition.True(def, apiextensionsv1.Established) {
		k.set(next, establish(def))
	}
	if c := approvalState(def); c != nil {
		k.set(next, *c)
	}
	if c := structuralState(def); c != nil {
		k.set(next, *c)
	} else {
		next.Status.Conditions = slices.DeleteFunc(next.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.NonStructuralSchema
		})
	}
	if kinds.Same(next.Status, def.Status) {
		return nil, false
	}
	return next, renamed
}

// set puts conditions in, with the time of the transition.
func (k *keeper) set(d *apiextensionsv1.CustomResourceDefinition, conditions ...apiextensionsv1.CustomResourceDefinitionCondition) {
	for _, c := range conditions {
		if have := definition.Condition(d, c.Type); have == nil || have.Status != c.Status || have.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.NewTime(k.cfg.Now()).Rfc3339Copy()
		}
		definition.SetCondition(d, c)
	}
}

func same(a, b *apiextensionsv1.CustomResourceDefinitionCondition) bool {
	return a != nil && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
}

// tell writes a definition's status. Whoever was faster is seen by the watch: then
// there is nothing to say, and nothing comes back.
func (k *keeper) tell(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, error) {
	out, err := k.objects.Update(ctx, definitions.Object(d.Name).Sub("status"), d, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("write the status: %w", err)
	}
	written, ok := out.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("write the status: answer is a %T", out)
	}
	return written, nil
}
