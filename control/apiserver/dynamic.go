package apiserver

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/admit"
	policies "github.com/sampan-dev/sampan/control/apiserver/admit/policy"
	"github.com/sampan-dev/sampan/control/apiserver/admit/webhook"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/admissionregistration"
)

// dynamic is the part of admission that users configure while the server runs.
type dynamic struct {
	policies *policies.Policies
	webhooks *webhook.Webhooks
}

// newDynamic puts the rules together and teaches the kinds that configure them to
// look into expressions.
func (s *Server) newDynamic(reader *ownReader) *dynamic {
	admissionregistration.Compile(s.cfg.Kinds, cel.Checker{})
	return &dynamic{
		policies: policies.New(policies.Config{Policies: reader, Objects: reader, Table: served{s}, Authz: s.authz, Log: s.cfg.Log}),
		webhooks: webhook.New(webhook.Config{Configurations: reader, Objects: reader, Table: served{s}, Caller: s.webhooks,
			Authz: s.authz, Log: s.cfg.Log}),
	}
}

// rules are in upstream's order.
func (d *dynamic) rules() []admit.Plugin {
	return []admit.Plugin{
		{Name: "MutatingAdmissionPolicy", Rule: admit.Changes{Rule: d.policies}},
		{Name: "MutatingAdmissionWebhook", Rule: admit.Changes{Rule: d.webhooks}},
		{Rule: d.policies.Rights()},
		{Name: "ValidatingAdmissionPolicy", Rule: admit.Judges{Rule: d.policies}},
		{Name: "ValidatingAdmissionWebhook", Rule: admit.Judges{Rule: d.webhooks}},
	}
}

// metrics are those of policies and webhooks.
func (d *dynamic) metrics() []prometheus.Collector {
	return []prometheus.Collector{d.policies, d.webhooks}
}

// run follows the configuration until ctx ends.
func (d *dynamic) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.policies.Run(ctx) })
	g.Go(func() error { return d.webhooks.Run(ctx) })
	return g.Wait()
}

// served is the table of what is served; it exists before the server that has it.
type served struct{ server *Server }

func (t served) Kind(gvr schema.GroupVersionResource) (*kinds.Kind, bool) {
	return t.server.resources.Kind(gvr)
}

func (t served) Equivalents(gvr schema.GroupVersionResource) []*kinds.Kind {
	return t.server.resources.Equivalents(gvr)
}

func (t served) KindOf(gvk schema.GroupVersionKind) (*kinds.Kind, bool) {
	return t.server.resources.KindOf(gvk)
}

func (t served) Types(k *kinds.Kind) managedfields.TypeConverter { return t.server.resources.Types(k) }

func (r *ownReader) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	return r.server.own.Watch(context.WithValue(ctx, ownKey{}, true), t, opts)
}
