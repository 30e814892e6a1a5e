package admit

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/pod-security-admission/api"
	checks "k8s.io/pod-security-admission/policy"

	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

const (
	// maxPodsChecked bounds how many pods are looked at when a namespace becomes
	// stricter, and podCheckTime for how long. Upstream's numbers.
	maxPodsChecked = 3000
	podCheckTime   = time.Second
)

// PodSecurity configures the Pod Security Standards, as upstream's
// PodSecurityConfiguration does. The zero value is upstream's default: everything
// is privileged where a namespace does not say otherwise.
type PodSecurity struct {
	// Defaults are the policies of namespaces that do not say.
	Defaults PodSecurityDefaults
	// Exemptions are never judged.
	Exemptions PodSecurityExemptions
}

// PodSecurityDefaults are levels ("privileged", "baseline", "restricted") and
// versions ("latest", "v1.37") of the three modes; "" is privileged and latest.
type PodSecurityDefaults struct {
	Enforce, EnforceVersion string
	Audit, AuditVersion     string
	Warn, WarnVersion       string
}

// PodSecurityExemptions name those who may do everything.
type PodSecurityExemptions struct{ Usernames, RuntimeClasses, Namespaces []string }

// podSecurity judges pods by the Pod Security Standards that their namespace's
// labels name: it refuses, and warns of and notes down what a stricter one would
// refuse. What only makes pods, as a Deployment, is never refused.
type podSecurity struct {
	Judging
	objects   Reader
	evaluator checks.Evaluator
	defaults  api.Policy
	exempt    PodSecurityExemptions
}

// Valid says what is wrong with the configuration. Levels and versions that are
// wrong are taken for the strictest ones.
func (p PodSecurity) Valid() error {
	if _, errs := p.policy(); len(errs) > 0 {
		return fmt.Errorf("pod security defaults: %w", errs.ToAggregate())
	}
	return nil
}

// policy reads the defaults as if they were a namespace's labels.
func (p PodSecurity) policy() (api.Policy, field.ErrorList) {
	d := p.Defaults
	labels := map[string]string{}
	for label, value := range map[string]string{
		api.EnforceLevelLabel: d.Enforce, api.EnforceVersionLabel: d.EnforceVersion, api.AuditLevelLabel: d.Audit,
		api.AuditVersionLabel: d.AuditVersion, api.WarnLevelLabel: d.Warn, api.WarnVersionLabel: d.WarnVersion,
	} {
		if value != "" {
			labels[label] = value
		}
	}
	if d.Warn == "" { // it would follow from enforce's
		labels[api.WarnLevelLabel] = string(api.LevelPrivileged)
	}
	privileged := api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}
	return api.PolicyToEvaluate(labels, api.Policy{Enforce: privileged, Audit: privileged, Warn: privileged})
}

func newPodSecurity(objects Reader, cfg PodSecurity) Rule {
	evaluator, err := checks.NewEvaluator(checks.DefaultChecks(), nil)
	if err != nil {
		panic(fmt.Sprintf("admit: the published pod security checks contradict each other: %v", err))
	}
	defaults, _ := cfg.policy()
	return podSecurity{objects: objects, evaluator: evaluator, defaults: defaults, exempt: cfg.Exemptions}
}

func (r podSecurity) Validate(ctx context.Context, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate && a.Operation != resource.OpUpdate {
		return nil
	}
	switch o := a.Object.(type) {
	case *corev1.Namespace:
		return r.namespace(ctx, a, o)
	case *corev1.Pod:
		return r.pod(ctx, a, o)
	}
	if a.Target.Subresource != "" {
		return nil
	}
	if meta, spec := template(a.Object); spec != nil {
		return r.judge(ctx, a, meta, spec, false)
	}
	return nil
}

// template is the pod template of what makes pods.
func template(obj runtime.Object) (*metav1.ObjectMeta, *corev1.PodSpec) {
	var t *corev1.PodTemplateSpec
	switch o := obj.(type) {
	case *corev1.PodTemplate:
		t = &o.Template
	case *corev1.ReplicationController:
		t = o.Spec.Template
	case *appsv1.ReplicaSet:
		t = &o.Spec.Template
	case *appsv1.Deployment:
		t = &o.Spec.Template
	case *appsv1.DaemonSet:
		t = &o.Spec.Template
	case *appsv1.StatefulSet:
		t = &o.Spec.Template
	case *batchv1.Job:
		t = &o.Spec.Template
	case *batchv1.CronJob:
		t = &o.Spec.JobTemplate.Spec.Template
	}
	if t == nil {
		return nil, nil
	}
	return &t.ObjectMeta, &t.Spec
}

// pod judges a pod, and an update that brings another image into it.
func (r podSecurity) pod(ctx context.Context, a *resource.Attributes, pod *corev1.Pod) error {
	if sub := a.Target.Subresource; sub != "" && sub != "ephemeralcontainers" && sub != "resize" {
		return nil
	}
	if old, ok := a.Old.(*corev1.Pod); ok && a.Operation == resource.OpUpdate && sameImages(pod, old) {
		return nil
	}
	return r.judge(ctx, a, &pod.ObjectMeta, &pod.Spec, true)
}

func sameImages(pod, old *corev1.Pod) bool {
	same := func(a, b []corev1.Container) bool {
		return slices.EqualFunc(a, b, func(x, y corev1.Container) bool { return x.Image == y.Image })
	}
	if !same(pod.Spec.Containers, old.Spec.Containers) || !same(pod.Spec.InitContainers, old.Spec.InitContainers) {
		return false
	}
	had := map[string]string{}
	for _, c := range old.Spec.EphemeralContainers {
		had[c.Name] = c.Image
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if image, ok := had[c.Name]; !ok || image != c.Image {
			return false
		}
	}
	return true
}

// judge enforces where enforce is set, warns, and notes down.
func (r podSecurity) judge(ctx context.Context, a *resource.Attributes, meta *metav1.ObjectMeta, spec *corev1.PodSpec, enforce bool) error {
	note := func(key, value string) { audit.Annotate(ctx, api.AuditAnnotationPrefix+key, value) }
	if reason := r.exemption(a, spec); reason != "" {
		note(api.ExemptionReasonAnnotationKey, reason)
		return nil
	}
	wanted, err := r.policyOf(ctx, a.Target.Namespace)
	if wanted == nil {
		if !enforce {
			note("error", fmt.Sprintf("failed to lookup namespace %q: %v", a.Target.Namespace, err))
			return nil
		}
		return apierrors.NewInternalError(fmt.Errorf("failed to lookup namespace %q", a.Target.Namespace))
	}
	if err != nil {
		note("error", fmt.Sprintf("Failed to parse policy: %v", err))
	} else if wanted.FullyPrivileged() {
		if enforce {
			note(api.EnforcedPolicyAnnotationKey, api.LevelVersion{Level: api.LevelPrivileged, Version: api.LatestVersion()}.String())
		}
		return nil
	}
	check := func(lv api.LevelVersion) checks.AggregateCheckResult {
		return checks.AggregateCheckResults(r.evaluator.EvaluatePod(lv, meta, spec))
	}
	var refused error
	if enforce {
		note(api.EnforcedPolicyAnnotationKey, wanted.Enforce.String())
		if result := check(wanted.Enforce); !result.Allowed {
			refused = a.Forbidden(fmt.Errorf("violates PodSecurity %q: %s", wanted.Enforce.String(), result.ForbiddenDetail()))
		}
	}
	if result := check(wanted.Audit); !result.Allowed {
		note(api.AuditViolationsAnnotationKey, fmt.Sprintf("would violate PodSecurity %q: %s", wanted.Audit.String(), result.ForbiddenDetail()))
	}
	if refused != nil {
		return refused
	}
	if result := check(wanted.Warn); !result.Allowed {
		a.Warn(fmt.Sprintf("would violate PodSecurity %q: %s", wanted.Warn.String(), result.ForbiddenDetail()))
	}
	return nil
}

// exemption says why a request is not judged; "" if it is.
func (r podSecurity) exemption(a *resource.Attributes, spec *corev1.PodSpec) string {
	switch {
	case slices.Contains(r.exempt.Namespaces, a.Target.Namespace):
		return "namespace"
	case slices.Contains(r.exempt.Usernames, a.User.Name):
		return "user"
	case spec.RuntimeClassName != nil && slices.Contains(r.exempt.RuntimeClasses, *spec.RuntimeClassName):
		return "runtimeClass"
	}
	return ""
}

// policyOf is the policy of a namespace, nil if that cannot be known. Labels that
// make no sense are an error beside the strictest reading of them.
func (r podSecurity) policyOf(ctx context.Context, namespace string) (*api.Policy, error) {
	obj, err := cached(ctx, r.objects, core("namespaces", "", namespace))
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil, errors.New("not a namespace")
	}
	wanted, errs := api.PolicyToEvaluate(ns.Labels, r.defaults)
	return &wanted, errs.ToAggregate()
}

// namespace refuses labels that make no sense, and warns of pods that would not
// be let in any more.
func (r podSecurity) namespace(ctx context.Context, a *resource.Attributes, ns *corev1.Namespace) error {
	if a.Target.Subresource != "" {
		return nil
	}
	now, errs := api.PolicyToEvaluate(ns.Labels, r.defaults)
	old, changed := a.Old.(*corev1.Namespace)
	changed = changed && a.Operation == resource.OpUpdate
	var was api.Policy
	if changed {
		before, wrong := api.PolicyToEvaluate(old.Labels, r.defaults)
		if was = before; reflect.DeepEqual(errs, wrong) {
			errs = nil // they were wrong before
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Namespace").GroupKind(), ns.Name, errs)
	}
	laxer := changed && (now.Enforce == was.Enforce || now.Enforce.Level == api.LevelPrivileged ||
		now.Enforce.Version == was.Enforce.Version && api.CompareLevels(now.Enforce.Level, was.Enforce.Level) < 1)
	switch {
	case laxer:
	case slices.Contains(r.exempt.Namespaces, ns.Name):
		if w := r.ignoredPolicy(ns, &now); w != "" {
			a.Warn(w)
		}
	case changed:
		for _, w := range r.existing(ctx, ns.Name, now.Enforce) {
			a.Warn(w)
		}
	}
	return nil
}

// ignoredPolicy warns that an exempt namespace has asked for a policy.
func (r podSecurity) ignoredPolicy(ns *corev1.Namespace, p *api.Policy) string {
	if p.FullyPrivileged() || p.Equivalent(&r.defaults) {
		return ""
	}
	var parts []string
	for _, m := range []struct {
		mode, level, version string
		lv                   api.LevelVersion
	}{
		{"enforce", api.EnforceLevelLabel, api.EnforceVersionLabel, p.Enforce},
		{"audit", api.AuditLevelLabel, api.AuditVersionLabel, p.Audit},
		{"warn", api.WarnLevelLabel, api.WarnVersionLabel, p.Warn},
	} {
		_, level := ns.Labels[m.level]
		_, version := ns.Labels[m.version]
		if m.lv.Level != api.LevelPrivileged && (level || version) {
			parts = append(parts, m.mode+"="+m.lv.String())
		}
	}
	return fmt.Sprintf("namespace %q is exempt from Pod Security, and the policy (%s) will be ignored", ns.Name, strings.Join(parts, ", "))
}

// existing are warnings about the pods that are there, those that say the same as
// one. Of the pods of one controller the first is looked at first.
func (r podSecurity) existing(ctx context.Context, namespace string, enforce api.LevelVersion) []string {
	pods, err := listed[*corev1.Pod](ctx, r.objects, core("pods", namespace, ""))
	if err != nil {
		return []string{"failed to list pods while checking new PodSecurity enforce level"}
	}
	pods = r.inOrder(pods)
	begin, checked := time.Now(), min(len(pods), maxPodsChecked)
	names := map[string][]string{}
	for i, pod := range pods[:checked] {
		if result := checks.AggregateCheckResults(r.evaluator.EvaluatePod(enforce, &pod.ObjectMeta, &pod.Spec)); !result.Allowed {
			names[result.ForbiddenReason()] = append(names[result.ForbiddenReason()], pod.Name)
		}
		if time.Since(begin) > podCheckTime {
			checked = i + 1
			break
		}
	}
	var warnings, about []string
	if checked < len(pods) {
		warnings = append(warnings, fmt.Sprintf("new PodSecurity enforce level only checked against the first %d of %d existing pods", checked, len(pods)))
	}
	if len(names) > 0 {
		warnings = append(warnings, fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", namespace, enforce.String()))
	}
	for reason, of := range names {
		others := ""
		switch n := len(of) - 1; n {
		case 0:
		case 1:
			others = " (and 1 other pod)"
		default:
			others = fmt.Sprintf(" (and %d other pods)", n)
		}
		about = append(about, slices.Min(of)+others+": "+reason)
	}
	sort.Strings(about)
	return append(warnings, about...)
}

func (r podSecurity) inOrder(pods []*corev1.Pod) []*corev1.Pod {
	var first, later []*corev1.Pod
	seen := map[types.UID]bool{}
	for _, pod := range pods {
		if c := pod.Spec.RuntimeClassName; c != nil && slices.Contains(r.exempt.RuntimeClasses, *c) {
			continue
		}
		owner := metav1.GetControllerOfNoCopy(pod)
		if owner != nil && seen[owner.UID] {
			later = append(later, pod)
			continue
		}
		if owner != nil {
			seen[owner.UID] = true
		}
		first = append(first, pod)
	}
	return append(first, later...)
}
