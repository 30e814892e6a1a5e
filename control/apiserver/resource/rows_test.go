package resource_test

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/kinds"
)

// The rows below are as small as a kind can be and still use every rule of the
// handler; what the real kinds are is tested beside them.
func rows() []*kinds.Kind {
	return []*kinds.Kind{
		configMapRow(), podRow(), namespaceRow(), deploymentRow(), budgetRow(), viewedEventRow(), eventRow(), bindingRow(), secretRow(),
	}
}

func row(gvk string, namespaced bool) *kinds.Kind {
	return &kinds.Kind{Resource: gvk, Storage: gvk, Namespaced: namespaced}
}

func configMapRow() *kinds.Kind {
	k := row("configmaps", true)
	k.GVK = corev1.SchemeGroupVersion.WithKind("ConfigMap")
	k.New = func() kinds.Object { return &corev1.ConfigMap{} }
	k.NewList = func() runtime.Object { return &corev1.ConfigMapList{} }
	k.Strategy.Validate = kinds.Check(func(c *corev1.ConfigMap) field.ErrorList {
		var errs field.ErrorList
		for key := range c.Data {
			if key == "bad key" {
				errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "a valid config key must not have a space"))
			}
		}
		return errs
	})
	k.Strategy.ValidateUpdate = kinds.CheckUpdate(func(c, old *corev1.ConfigMap) field.ErrorList {
		if old.Immutable != nil && *old.Immutable {
			return field.ErrorList{field.Forbidden(field.NewPath("data"), "field is immutable when `immutable` is set")}
		}
		return nil
	})
	k.Table = kinds.Table{
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name"}, {Name: "Data", Type: "integer"},
		},
		Row: kinds.Row(func(c *corev1.ConfigMap, _ time.Time) []any { return []any{c.Name, len(c.Data)} }),
	}
	return k
}

func secretRow() *kinds.Kind {
	k := row("secrets", true)
	k.GVK = corev1.SchemeGroupVersion.WithKind("Secret")
	k.New = func() kinds.Object { return &corev1.Secret{} }
	k.NewList = func() runtime.Object { return &corev1.SecretList{} }
	return k
}

func podRow() *kinds.Kind {
	k := row("pods", true)
	k.GVK = corev1.SchemeGroupVersion.WithKind("Pod")
	k.New = func() kinds.Object { return &corev1.Pod{} }
	k.NewList = func() runtime.Object { return &corev1.PodList{} }
	k.FieldLabels = []string{"spec.nodeName", "status.phase"}
	k.Fields = kinds.Fields(func(p *corev1.Pod) fields.Set {
		return fields.Set{"spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase)}
	})
	k.Strategy = kinds.Strategy{
		Generation:     true,
		ReturnsDeleted: true,
		Default: kinds.Each(func(p *corev1.Pod) {
			if p.Spec.RestartPolicy == "" {
				p.Spec.RestartPolicy = corev1.RestartPolicyAlways
			}
			if p.Spec.TerminationGracePeriodSeconds == nil {
				p.Spec.TerminationGracePeriodSeconds = new(int64(30))
			}
		}),
		PrepareCreate: kinds.Each(func(p *corev1.Pod) {
			p.Generation = 1
			p.Status = corev1.PodStatus{Phase: corev1.PodPending}
		}),
		PrepareUpdate: kinds.Pair(func(p, old *corev1.Pod) { p.Status = old.Status }),
		Grace: func(obj kinds.Object, opts *metav1.DeleteOptions) (int64, bool) {
			p := obj.(*corev1.Pod)
			seconds := *p.Spec.TerminationGracePeriodSeconds
			if opts.GracePeriodSeconds != nil {
				seconds = *opts.GracePeriodSeconds
			}
			if p.Spec.NodeName == "" {
				seconds = 0
			}
			return seconds, true
		},
	}
	k.Subresources = []kinds.Subresource{
		kinds.Status(func(next, body *corev1.Pod) { next.Status = body.Status }),
		{Name: "binding", GVK: corev1.SchemeGroupVersion.WithKind("Binding"), Verbs: []string{"create"},
			New: func() runtime.Object { return &corev1.Binding{} }},
		{Name: "eviction", GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"), Verbs: []string{"create"},
			New: func() runtime.Object { return &policyv1.Eviction{} }},
		{Name: "log", Verbs: []string{"get"}},
	}
	return k
}

func bindingRow() *kinds.Kind {
	k := row("bindings", true)
	k.Storage = ""
	k.GVK = corev1.SchemeGroupVersion.WithKind("Binding")
	k.New = func() kinds.Object { return &corev1.Binding{} }
	k.NewList = func() runtime.Object { return &corev1.List{} }
	return k
}

func namespaceRow() *kinds.Kind {
	k := row("namespaces", false)
	k.GVK = corev1.SchemeGroupVersion.WithKind("Namespace")
	k.New = func() kinds.Object { return &corev1.Namespace{} }
	k.NewList = func() runtime.Object { return &corev1.NamespaceList{} }
	k.Strategy = kinds.Strategy{
		PrepareCreate: kinds.Each(func(n *corev1.Namespace) {
			n.Status.Phase = corev1.NamespaceActive
			n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		}),
		PrepareUpdate: kinds.Pair(func(n, old *corev1.Namespace) { n.Spec, n.Status = old.Spec, old.Status }),
		Deleting:      kinds.Each(func(n *corev1.Namespace) { n.Status.Phase = corev1.NamespaceTerminating }),
		Holds:         func(obj kinds.Object) bool { return len(obj.(*corev1.Namespace).Spec.Finalizers) > 0 },
	}
	k.Subresources = []kinds.Subresource{
		kinds.Status(func(next, body *corev1.Namespace) { next.Status = body.Status }),
		{Name: "finalize", Verbs: []string{"update"}, Copy: func(next kinds.Object, body runtime.Object) error {
			next.(*corev1.Namespace).Spec.Finalizers = body.(*corev1.Namespace).Spec.Finalizers
			return nil
		}},
	}
	return k
}

func deploymentRow() *kinds.Kind {
	k := row("deployments", true)
	k.GVK = appsv1.SchemeGroupVersion.WithKind("Deployment")
	k.New = func() kinds.Object { return &appsv1.Deployment{} }
	k.NewList = func() runtime.Object { return &appsv1.DeploymentList{} }
	k.Strategy = kinds.Strategy{
		Generation: true,
		Default: kinds.Each(func(d *appsv1.Deployment) {
			if d.Spec.Replicas == nil {
				d.Spec.Replicas = new(int32(1))
			}
		}),
		PrepareCreate: kinds.Each(func(d *appsv1.Deployment) { d.Generation, d.Status = 1, appsv1.DeploymentStatus{} }),
		PrepareUpdate: kinds.Pair(func(d, old *appsv1.Deployment) {
			d.Status = old.Status
			kinds.NextGeneration(d, old, !kinds.Same(d.Spec, old.Spec))
		}),
	}
	k.Subresources = []kinds.Subresource{
		kinds.Status(func(next, body *appsv1.Deployment) { next.Status = body.Status }),
		kinds.ScaleOf(kinds.Scaled[*appsv1.Deployment]{
			Replicas: func(d *appsv1.Deployment) **int32 { return &d.Spec.Replicas },
			Current:  func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
			Selector: func(d *appsv1.Deployment) string { return metav1.FormatLabelSelector(d.Spec.Selector) },
		}),
	}
	return k
}

func budgetRow() *kinds.Kind {
	k := row("poddisruptionbudgets", true)
	k.GVK = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
	k.New = func() kinds.Object { return &policyv1.PodDisruptionBudget{} }
	k.NewList = func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} }
	k.Subresources = []kinds.Subresource{
		kinds.Status(func(next, body *policyv1.PodDisruptionBudget) { next.Status = body.Status }),
	}
	return k
}

func eventRow() *kinds.Kind {
	k := row("events", true)
	k.GVK = corev1.SchemeGroupVersion.WithKind("Event")
	k.New = func() kinds.Object { return &corev1.Event{} }
	k.NewList = func() runtime.Object { return &corev1.EventList{} }
	k.Strategy.CreateOnUpdate = true
	k.Strategy.NoDependents = true
	k.TTL = func(kinds.Object) time.Duration { return time.Hour }
	return k
}

func viewedEventRow() *kinds.Kind {
	k := row("events", true)
	k.GVK = eventsv1.SchemeGroupVersion.WithKind("Event")
	k.New = func() kinds.Object { return &eventsv1.Event{} }
	k.NewList = func() runtime.Object { return &eventsv1.EventList{} }
	k.View = &kinds.View{
		Stored: corev1.SchemeGroupVersion.WithKind("Event"),
		ToStored: func(obj kinds.Object) kinds.Object {
			e := obj.(*eventsv1.Event)
			return &corev1.Event{ObjectMeta: *e.ObjectMeta.DeepCopy(), Message: e.Note, Reason: e.Reason, InvolvedObject: e.Regarding}
		},
		FromStored: func(obj kinds.Object) kinds.Object {
			e := obj.(*corev1.Event)
			return &eventsv1.Event{ObjectMeta: *e.ObjectMeta.DeepCopy(), Note: e.Message, Reason: e.Reason, Regarding: e.InvolvedObject}
		},
	}
	return k
}

// allowed lets everybody do everything but what it names.
type allowed struct{ denied map[string]bool }

func (a allowed) Authorize(_ context.Context, q resource.Access) (bool, string, error) {
	if a.denied[q.User.Name+" "+q.Verb+" "+q.Target.Resource.Resource] {
		return false, "", nil
	}
	return true, "", nil
}
