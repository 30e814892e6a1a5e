// Package apiregistration says what the kind of the apiregistration.k8s.io group
// is: which server answers for one version of an API group.
package apiregistration

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// Bounds and defaults of a specification.
const (
	maxGroupPriority   = 20000
	maxVersionPriority = 1000
	defaultPort        = 443
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{APIService()} }

// APIService is the kind that names the server of one version of an API group:
// this one, or another behind a service of the cluster.
func APIService() *kinds.Kind {
	return &kinds.Kind{
		GVK:        apiregistrationv1.SchemeGroupVersion.WithKind("APIService"),
		Resource:   "apiservices",
		Singular:   "apiservice",
		Categories: []string{"api-extensions"},
		Storage:    "apiregistration.k8s.io/apiservices",
		New:        func() kinds.Object { return &apiregistrationv1.APIService{} },
		NewList:    func() runtime.Object { return &apiregistrationv1.APIServiceList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Default:                   kinds.Each(setDefaults),
			PrepareCreate:             kinds.Each(prepare),
			PrepareUpdate:             kinds.Pair(func(s, old *apiregistrationv1.APIService) { s.Status = old.Status }),
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(func(s, _ *apiregistrationv1.APIService) field.ErrorList { return validate(s) }),
			ValidateName:              kinds.PathName,
			ForbidUnconditionalUpdate: true,
		},
		Table:        kinds.Table{Columns: kinds.Explained(apiServiceTexts(), "Name", "Service", "Available", "Age"), Row: kinds.Row(row)},
		Subresources: []kinds.Subresource{status()},
	}
}

// Local says whether this server itself answers for the group version.
func Local(s *apiregistrationv1.APIService) bool { return s.Spec.Service == nil }

// Available is the condition that says whether the server behind s can be asked,
// and nil while nobody has tried.
func Available(s *apiregistrationv1.APIService) *apiregistrationv1.APIServiceCondition {
	for i := range s.Status.Conditions {
		if s.Status.Conditions[i].Type == apiregistrationv1.Available {
			return &s.Status.Conditions[i]
		}
	}
	return nil
}

func setDefaults(s *apiregistrationv1.APIService) {
	if s.Spec.Service != nil && s.Spec.Service.Port == nil {
		port := int32(defaultPort)
		s.Spec.Service.Port = &port
	}
}

// prepare: what this server serves is available at once. The time of the
// condition is the object's own birth.
func prepare(s *apiregistrationv1.APIService) {
	s.Status = apiregistrationv1.APIServiceStatus{}
	if Local(s) {
		s.Status.Conditions = []apiregistrationv1.APIServiceCondition{{
			Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: s.CreationTimestamp,
			Reason: "Local", Message: "Local APIServices are always available",
		}}
	}
}

// status changes the status alone: the metadata is not its writer's.
func status() kinds.Subresource {
	sub := kinds.StatusRules(func(next, body *apiregistrationv1.APIService) { next.Status = body.Status },
		func(s, _ *apiregistrationv1.APIService) field.ErrorList { return validateStatus(s) })
	sub.Copy = func(next kinds.Object, body runtime.Object) error {
		from, ok := body.(*apiregistrationv1.APIService)
		if !ok {
			return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
		}
		next.(*apiregistrationv1.APIService).Status = from.DeepCopy().Status
		return nil
	}
	return sub
}

func row(s *apiregistrationv1.APIService, now time.Time) []any {
	service, available := "Local", string(apiregistrationv1.ConditionUnknown)
	if !Local(s) {
		service = s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
	}
	if c := Available(s); c != nil {
		available = string(c.Status)
		if c.Status != apiregistrationv1.ConditionTrue && c.Reason != "" {
			available = fmt.Sprintf("%s (%s)", c.Status, c.Reason)
		}
	}
	return []any{s.Name, service, available, kinds.Age(metav1.Time{Time: s.CreationTimestamp.Time}, now)}
}

func validate(s *apiregistrationv1.APIService) field.ErrorList {
	var f kinds.Faults
	spec := kinds.NewPath("spec")
	if wanted := s.Spec.Version + "." + s.Spec.Group; s.Name != "" && s.Name != wanted && len(content.IsPathSegmentName(s.Name)) == 0 {
		f.Invalid(kinds.NewPath("metadata").Child("name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", wanted))
	}
	if s.Spec.Group == "" && s.Spec.Version != "v1" {
		f.Required(spec.Child("group"), "only v1 may have an empty group and it better be legacy kube")
	}
	if s.Spec.Group != "" {
		f.Each(spec.Child("group"), s.Spec.Group, validation.IsDNS1123Subdomain(s.Spec.Group))
	}
	f.Each(spec.Child("version"), s.Spec.Version, validation.IsDNS1035Label(s.Spec.Version))
	if p := s.Spec.GroupPriorityMinimum; p <= 0 || p > maxGroupPriority {
		f.Invalid(spec.Child("groupPriorityMinimum"), p, "must be positive and less than 20000")
	}
	if p := s.Spec.VersionPriority; p <= 0 || p > maxVersionPriority {
		f.Invalid(spec.Child("versionPriority"), p, "must be positive and less than 1000")
	}
	if Local(s) {
		validateLocal(&f, s, spec)
		return f.List()
	}
	at := spec.Child("service")
	f.NonEmpty(at.Child("namespace"), s.Spec.Service.Namespace)
	f.NonEmpty(at.Child("name"), s.Spec.Service.Name)
	port := kinds.Deref(s.Spec.Service.Port)
	for _, fault := range validation.IsValidPortNum(int(port)) {
		f.Invalid(at.Child("port"), port, "port is not valid: "+fault)
	}
	if s.Spec.InsecureSkipTLSVerify && len(s.Spec.CABundle) > 0 {
		f.Invalid(spec.Child("insecureSkipTLSVerify"), s.Spec.InsecureSkipTLSVerify, "may not be true if caBundle is present")
	}
	return f.List()
}

func validateLocal(f *kinds.Faults, s *apiregistrationv1.APIService, spec *kinds.Path) {
	if n := len(s.Spec.CABundle); n != 0 {
		f.Invalid(spec.Child("caBundle"), fmt.Sprintf("%d bytes", n), "local APIServices may not have a caBundle")
	}
	if s.Spec.InsecureSkipTLSVerify {
		f.Invalid(spec.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify")
	}
}

func validateStatus(s *apiregistrationv1.APIService) field.ErrorList {
	var f kinds.Faults
	for i, c := range s.Status.Conditions {
		kinds.Listed(&f, kinds.NewPath("status").Child("conditions").Index(i).Child("status"), c.Status,
			apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown)
	}
	return f.List()
}
