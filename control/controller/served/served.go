// Package served keeps a promise: whoever looks after all kinds (the collector,
// the end of a namespace, quotas) knows the custom ones, too, as soon as they are
// established and until they are gone.
package served

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// definitions are the kinds that users define.
var definitions = client.Resource[*apiextensionsv1.CustomResourceDefinition]{
	GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"), Kind: "CustomResourceDefinition",
}

// Controller keeps a controller.Kinds. It writes nothing to the server.
type Controller struct {
	kinds   *controller.Kinds
	builtIn []controller.Kind
	known   *informer.Informer[*apiextensionsv1.CustomResourceDefinition]

	mu     sync.Mutex // one change at a time
	custom []controller.Kind
}

// New makes the controller; kinds holds the built-in ones, which stay.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("served kinds: no kinds")
	}
	builtIn, _ := kinds.List()
	c := &Controller{kinds: kinds, builtIn: builtIn, known: controller.Mirror(cfg.Mirrors, definitions)}
	c.known.Subscribe(func(informer.Event[*apiextensionsv1.CustomResourceDefinition]) { c.changed() })
	return c, nil
}

// Name implements reconcile.Owner.
func (*Controller) Name() string { return "served" }

// Reads implements controller.Controller.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{definitions.GroupVersionResource}
}

// Writes implements reconcile.Owner.
func (*Controller) Writes() []reconcile.Write { return nil }

// Run implements controller.Controller: the mirror does the work.
func (*Controller) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (c *Controller) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var custom []controller.Kind
	for _, def := range c.known.List() {
		if kind, ok := kindOf(def); ok {
			custom = append(custom, kind)
		}
	}
	slices.SortFunc(custom, func(a, b controller.Kind) int { return strings.Compare(a.String(), b.String()) })
	if slices.Equal(custom, c.custom) {
		return
	}
	c.custom = custom
	c.kinds.Set(slices.Concat(c.builtIn, custom))
}

// kindOf is the kind that a definition makes, in the version that is stored or
// else the first that is served; ok is false while it is not served.
func kindOf(def *apiextensionsv1.CustomResourceDefinition) (kind controller.Kind, ok bool) {
	established := slices.ContainsFunc(def.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
	version := ""
	for _, v := range def.Spec.Versions {
		if v.Served && (version == "" || v.Storage) {
			version = v.Name
		}
	}
	if !established || version == "" {
		return controller.Kind{}, false
	}
	return controller.Kind{
		GroupVersionResource: schema.GroupVersionResource{Group: def.Spec.Group, Version: version, Resource: def.Status.AcceptedNames.Plural},
		Kind:                 def.Status.AcceptedNames.Kind,
		Namespaced:           def.Spec.Scope == apiextensionsv1.NamespaceScoped,
	}, true
}
