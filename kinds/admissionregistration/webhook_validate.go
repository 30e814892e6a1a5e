package admissionregistration

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The longest that a webhook may take, in seconds.
const maxTimeoutSeconds = 30

// hook is what both sorts of webhooks have; a validating one is told as a
// mutating one that is never called again.
type hook struct{ *admissionv1.MutatingWebhook }

func mutatingHooks(c *admissionv1.MutatingWebhookConfiguration) []hook {
	all := make([]hook, 0, len(c.Webhooks))
	for i := range c.Webhooks {
		all = append(all, hook{&c.Webhooks[i]})
	}
	return all
}

func validatingHooks(c *admissionv1.ValidatingWebhookConfiguration) []hook {
	all := make([]hook, 0, len(c.Webhooks))
	for _, w := range c.Webhooks {
		all = append(all, hook{&admissionv1.MutatingWebhook{
			Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy,
			MatchPolicy: w.MatchPolicy, NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector,
			SideEffects: w.SideEffects, TimeoutSeconds: w.TimeoutSeconds,
			AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
		}})
	}
	return all
}

// lenience is what an update may keep because the object had it before.
type lenience struct {
	conditions, sideEffects, versions, names, selectors bool
	had                                                 texts
}

// lenienceFor compares the old webhooks with the new ones. A new object has none.
func lenienceFor(hooks, old []hook, update bool) lenience {
	l := lenience{had: texts{}}
	if !update {
		return l
	}
	names := map[string]bool{}
	l.conditions = len(hooks) == len(old)
	for i, h := range old {
		if l.conditions && !kinds.Same(hooks[i].MatchConditions, h.MatchConditions) {
			l.conditions = false
		}
		l.sideEffects = l.sideEffects || h.SideEffects == nil || !harmless(*h.SideEffects)
		l.versions = l.versions || len(h.AdmissionReviewVersions) > 0 && !slices.ContainsFunc(h.AdmissionReviewVersions, spoken)
		l.names = l.names || names[h.Name]
		names[h.Name] = true
		for _, s := range []*metav1.LabelSelector{h.NamespaceSelector, h.ObjectSelector} {
			l.selectors = l.selectors || s != nil && len(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
		}
		conditionTexts(l.had, h.MatchConditions)
	}
	return l
}

func harmless(s admissionv1.SideEffectClass) bool {
	return s == admissionv1.SideEffectClassNone || s == admissionv1.SideEffectClassNoneOnDryRun
}

// reviewVersions are the versions of AdmissionReview that the server speaks.
func reviewVersions() []string { return []string{"v1", "v1beta1"} }

func spoken(version string) bool { return slices.Contains(reviewVersions(), version) }

// validateConfiguration reports everything wrong with a configuration's webhooks;
// old is nil for a new one.
func validateConfiguration(compiler Compiler, obj metav1.Object, hooks, old []hook) field.ErrorList {
	var f kinds.Faults
	allow := lenienceFor(hooks, old, old != nil)
	names := map[string]bool{}
	for i, h := range hooks {
		at := kinds.NewPath("webhooks").Index(i)
		validateHook(&f, h, allow, at)
		if !allow.conditions {
			newExpressions(&f, compiler, false, false).conditions(at.Child("matchConditions"), h.MatchConditions, allow.had)
		}
		validateReviewVersions(&f, h.AdmissionReviewVersions, !allow.versions, at.Child("admissionReviewVersions"))
		if !allow.names && h.Name != "" && names[h.Name] {
			f.Duplicate(at.Child("name"), h.Name)
		}
		names[h.Name] = true
	}
	if old == nil {
		checkReserved(&f, obj)
	}
	return f.List()
}

func validateHook(f *kinds.Faults, h hook, allow lenience, at *kinds.Path) {
	f.Join(validation.IsFullyQualifiedName(at.Child("name").Field(), h.Name))
	for i := range h.Rules {
		validateRule(f, &h.Rules[i], at.Child("rules").Index(i))
	}
	if h.FailurePolicy != nil {
		validateFailurePolicy(f, *h.FailurePolicy, at.Child("failurePolicy"))
	}
	if h.MatchPolicy != nil {
		validateMatchPolicy(f, *h.MatchPolicy, at.Child("matchPolicy"))
	}
	validateSideEffects(f, h.SideEffects, allow.sideEffects, at.Child("sideEffects"))
	if t := h.TimeoutSeconds; t != nil && (*t < 1 || *t > maxTimeoutSeconds) {
		f.Invalid(at.Child("timeoutSeconds"), *t, "the timeout value must be between 1 and 30 seconds")
	}
	opts := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: allow.selectors}
	if h.NamespaceSelector != nil {
		f.JoinAt(at.Child("namespaceSelector"), metavalidation.ValidateLabelSelector(h.NamespaceSelector, opts, kinds.Here))
	}
	if h.ObjectSelector != nil {
		f.JoinAt(at.Child("objectSelector"), metavalidation.ValidateLabelSelector(h.ObjectSelector, opts, kinds.Here))
	}
	if h.ReinvocationPolicy != nil {
		kinds.OneOf(f, at.Child("reinvocationPolicy"), *h.ReinvocationPolicy,
			admissionv1.NeverReinvocationPolicy, admissionv1.IfNeededReinvocationPolicy)
	}
	validateClient(f, h.ClientConfig, at.Child("clientConfig"))
}

func validateSideEffects(f *kinds.Faults, s *admissionv1.SideEffectClass, any bool, at *kinds.Path) {
	allowed := []admissionv1.SideEffectClass{admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun}
	if any {
		allowed = append(allowed, admissionv1.SideEffectClassSome, admissionv1.SideEffectClassUnknown)
	}
	if s == nil {
		names := make([]string, 0, len(allowed))
		for _, a := range allowed {
			names = append(names, string(a))
		}
		f.Required(at, "must specify one of "+strings.Join(names, ", "))
		return
	}
	kinds.OneOf(f, at, *s, allowed...)
}

func validateReviewVersions(f *kinds.Faults, versions []string, recognised bool, at *kinds.Path) {
	list := strings.Join(reviewVersions(), ", ")
	if len(versions) == 0 {
		f.Required(at, "must specify one of "+list)
		return
	}
	seen := map[string]bool{}
	for i, v := range versions {
		if seen[v] {
			f.Invalid(at.Index(i), v, "duplicate version")
			continue
		}
		seen[v] = true
		f.Each(at.Index(i), v, validation.IsDNS1035Label(v))
	}
	if recognised && !slices.ContainsFunc(versions, spoken) {
		f.Invalid(at, versions, "must include at least one of "+list)
	}
}

func validateClient(f *kinds.Faults, c admissionv1.WebhookClientConfig, at *kinds.Path) {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		f.Required(at, "exactly one of url or service is required")
	case c.URL != nil:
		validateURL(f, *c.URL, at.Child("url"))
	default:
		validateService(f, c.Service, at.Child("service"))
	}
}

// validateURL wants an address that says where, and nothing more.
func validateURL(f *kinds.Faults, text string, at *kinds.Path) {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		f.Required(at, "url must be a valid URL: "+err.Error()+form)
		return
	}
	if u.Scheme != "https" {
		f.Invalid(at, u.Scheme, "'https' is the only allowed URL scheme"+form)
	}
	if u.Host == "" {
		f.Invalid(at, u.Host, "host must be specified"+form)
	}
	if u.User != nil {
		f.Invalid(at, u.User.String(), "user information is not permitted in the URL")
	}
	if u.Fragment != "" {
		f.Invalid(at, u.Fragment, "fragments are not permitted in the URL")
	}
	if u.RawQuery != "" {
		f.Invalid(at, u.RawQuery, "query parameters are not permitted in the URL")
	}
}

// validateService says of which field a fault is. Upstream has name and namespace the
// other way round here: whoever forgets one is told of the other.
func validateService(f *kinds.Faults, s *admissionv1.ServiceReference, at *kinds.Path) {
	f.NonEmpty(at.Child("name"), s.Name)
	f.NonEmpty(at.Child("namespace"), s.Namespace)
	port := kinds.Deref(s.Port)
	if bad := validation.IsValidPortNum(int(port)); len(bad) > 0 {
		f.Invalid(at.Child("port"), port, "port is not valid: "+strings.Join(bad, ", "))
	}
	if s.Path != nil && *s.Path != "" && *s.Path != "/" {
		validatePath(f, *s.Path, at.Child("path"))
	}
}

func validatePath(f *kinds.Faults, path string, at *kinds.Path) {
	if path == "//" {
		f.Invalid(at, path, "segment[0] may not be empty")
		return
	}
	if !strings.HasPrefix(path, "/") {
		f.Invalid(at, path, "must start with a '/'")
	}
	for i, step := range strings.Split(strings.TrimSuffix(path[1:], "/"), "/") {
		segment := "segment[" + strconv.Itoa(i) + "]"
		if step == "" {
			f.Invalid(at, path, segment+" may not be empty")
			continue
		}
		for _, bad := range validation.IsDNS1123Subdomain(step) {
			f.Invalid(at, path, segment+": "+bad)
		}
	}
}
