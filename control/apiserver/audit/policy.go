package audit

import (
	"fmt"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/identity"
)

// maxPolicy bounds a policy's file, in bytes.
const maxPolicy = 1 << 20

// Policy is audit.k8s.io/v1 Policy: the first rule that fits a request decides.
type Policy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Rules             []Rule  `json:"rules"`
	OmitStages        []Stage `json:"omitStages,omitempty"`
	OmitManagedFields bool    `json:"omitManagedFields,omitempty"`
}

// Rule says at what level requests that fit it are written down. Empty lists fit
// everything.
type Rule struct {
	Level             Level            `json:"level"`
	Users             []string         `json:"users,omitempty"`
	UserGroups        []string         `json:"userGroups,omitempty"`
	Verbs             []string         `json:"verbs,omitempty"`
	Resources         []GroupResources `json:"resources,omitempty"`
	Namespaces        []string         `json:"namespaces,omitempty"`
	NonResourceURLs   []string         `json:"nonResourceURLs,omitempty"`
	OmitStages        []Stage          `json:"omitStages,omitempty"`
	OmitManagedFields *bool            `json:"omitManagedFields,omitempty"`
}

// GroupResources are resources of one group, or objects of them.
type GroupResources struct {
	Group         string   `json:"group,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
}

// Decision is what a policy says of one request.
type Decision struct {
	Level             Level
	OmitStages        []Stage
	OmitManagedFields bool
}

// Asked is what a policy looks at.
type Asked struct {
	User   identity.Identity
	Verb   string
	Object *Object // nil: a path that is no resource
	Path   string
}

// LoadPolicy reads and checks the file at path.
func LoadPolicy(path string) (*Policy, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("audit policy: %w", err)
	}
	if len(raw) > maxPolicy {
		return nil, fmt.Errorf("audit policy %q: %d bytes, at most %d", path, len(raw), maxPolicy)
	}
	p := &Policy{}
	if err := yaml.UnmarshalStrict(raw, p); err != nil {
		return nil, fmt.Errorf("audit policy %q: %w", path, err)
	}
	if p.APIVersion != apiVersion || p.Kind != "Policy" {
		return nil, fmt.Errorf("audit policy %q: got %s %s, want %s Policy", path, p.APIVersion, p.Kind, apiVersion)
	}
	if len(p.Rules) == 0 {
		return nil, fmt.Errorf("audit policy %q: loaded illegal policy with 0 rules", path)
	}
	if errs := p.check(); len(errs) > 0 {
		return nil, fmt.Errorf("audit policy %q: %w", path, errs.ToAggregate())
	}
	return p, nil
}

// check reports everything wrong at once, in upstream's words.
func (p *Policy) check() (errs field.ErrorList) {
	errs = checkStages(p.OmitStages, field.NewPath("omitStages"))
	for i := range p.Rules {
		errs = append(errs, p.Rules[i].check(field.NewPath("rules").Index(i))...)
	}
	return errs
}

func (r *Rule) check(at *field.Path) (errs field.ErrorList) {
	levels := []Level{None, Metadata, Request, RequestResponse}
	if !slices.Contains(levels, r.Level) {
		if r.Level == "" {
			errs = append(errs, field.Required(at.Child("level"), ""))
		} else {
			errs = append(errs, field.NotSupported(at.Child("level"), r.Level, levels))
		}
	}
	if len(r.NonResourceURLs) > 0 && (len(r.Resources) > 0 || len(r.Namespaces) > 0) {
		errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
	}
	for i, url := range r.NonResourceURLs {
		here := at.Child("nonResourceURLs").Index(i)
		switch {
		case url == "*":
		case !strings.HasPrefix(url, "/"):
			errs = append(errs, field.Invalid(here, url, "non-resource URL rules must begin with a '/' character"))
		case strings.Contains(strings.TrimSuffix(url, "*"), "*"):
			errs = append(errs, field.Invalid(here, url, "non-resource URL wildcards '*' must be the final character of the rule"))
		}
	}
	for i, gr := range r.Resources {
		here := at.Child("resources").Index(i)
		if strings.Contains(gr.Group, "/") {
			errs = append(errs, field.Invalid(here.Child("group"), gr.Group, "group must not contain a version"))
		}
		if len(gr.ResourceNames) > 0 && len(gr.Resources) == 0 {
			errs = append(errs, field.Invalid(here.Child("resourceNames"), gr.ResourceNames, "using resourceNames requires at least one resource"))
		}
	}
	return append(errs, checkStages(r.OmitStages, at.Child("omitStages"))...)
}

func checkStages(stages []Stage, at *field.Path) (errs field.ErrorList) {
	all := []Stage{RequestReceived, ResponseStarted, ResponseComplete, Panicked}
	for i, s := range stages {
		if !slices.Contains(all, s) {
			errs = append(errs, field.Invalid(at.Index(i), string(s), "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"))
		}
	}
	return errs
}

// Decide says what is written down of a request. What fits no rule is not.
func (p *Policy) Decide(a *Asked) Decision {
	for i := range p.Rules {
		r := &p.Rules[i]
		if !r.fits(a) {
			continue
		}
		d := Decision{Level: r.Level, OmitStages: append(slices.Clip(p.OmitStages), r.OmitStages...), OmitManagedFields: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			d.OmitManagedFields = *r.OmitManagedFields
		}
		return d
	}
	return Decision{Level: None}
}

func (r *Rule) fits(a *Asked) bool {
	if len(r.Users) > 0 && !slices.Contains(r.Users, a.User.Name) {
		return false
	}
	if len(r.UserGroups) > 0 && !slices.ContainsFunc(r.UserGroups, a.User.In) {
		return false
	}
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, a.Verb) {
		return false
	}
	switch {
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return a.Object != nil && (len(r.Namespaces) == 0 || slices.Contains(r.Namespaces, a.Object.Namespace)) &&
			(len(r.Resources) == 0 || slices.ContainsFunc(r.Resources, func(gr GroupResources) bool { return gr.fits(a.Object) }))
	case len(r.NonResourceURLs) > 0:
		return a.Object == nil && slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
			head, open := strings.CutSuffix(url, "*")
			return url == a.Path || open && strings.HasPrefix(a.Path, head)
		})
	}
	return true
}

func (gr *GroupResources) fits(o *Object) bool {
	if gr.Group != o.APIGroup && gr.Group != "*" {
		return false
	}
	if len(gr.Resources) == 0 {
		return true
	}
	if len(gr.ResourceNames) > 0 && !slices.Contains(gr.ResourceNames, o.Name) {
		return false
	}
	full := o.Resource
	if o.Subresource != "" {
		full += "/" + o.Subresource
	}
	return slices.ContainsFunc(gr.Resources, func(want string) bool {
		resource, all := strings.CutSuffix(want, "/*")
		sub, any := strings.CutPrefix(want, "*/")
		return want == "*" || want == full || all && resource == o.Resource || any && sub == o.Subresource && sub != ""
	})
}
