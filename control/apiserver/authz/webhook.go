package authz

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/sampan-dev/sampan/control/apiserver/callout"
	"github.com/sampan-dev/sampan/control/apiserver/cel/plain"
)

// Limits of the answers that are kept.
const (
	maxAnswers = 8192
	// maxKept is the longest question whose answer is kept, in bytes.
	maxKept = 10000
)

// webhook asks another server.
type webhook struct {
	name       string
	server     *callout.Server
	conditions []*plain.Expression
	timeout    time.Duration
	yes, no    time.Duration // how long answers hold
	onError    Decision
	now        func() time.Time

	mu   sync.Mutex
	kept map[string]answer
}

type answer struct {
	status authorizationv1.SubjectAccessReviewStatus
	until  time.Time
}

// Decide implements Source.
func (w *webhook) Decide(ctx context.Context, q Attributes) (Decision, string) {
	review := &authorizationv1.SubjectAccessReview{Spec: reviewOf(&q)}
	review.APIVersion, review.Kind = authorizationv1.SchemeGroupVersion.String(), "SubjectAccessReview"
	raw, err := json.Marshal(review.Spec)
	if err != nil {
		return w.onError, err.Error()
	}
	matches, err := w.matches(ctx, raw)
	if err != nil {
		return w.onError, fmt.Sprintf("webhook %q: %v", w.name, err)
	}
	if !matches {
		return NoOpinion, ""
	}
	status, err := w.status(ctx, string(raw), review)
	if err != nil {
		return w.onError, fmt.Sprintf("webhook %q: %v", w.name, err)
	}
	switch {
	case status.Denied:
		return Deny, status.Reason
	case status.Allowed:
		return Allow, status.Reason
	}
	return NoOpinion, status.Reason
}

// matches: one condition that is false keeps the server from being asked, whatever
// the others come to.
func (w *webhook) matches(ctx context.Context, raw []byte) (bool, error) {
	if len(w.conditions) == 0 {
		return true, nil
	}
	var request map[string]any
	if err := json.Unmarshal(raw, &request); err != nil {
		return false, err
	}
	var failed error
	for _, c := range w.conditions {
		ok, err := c.Bool(ctx, map[string]any{"request": request})
		if err != nil {
			failed = err
			continue
		}
		if !ok {
			return false, nil
		}
	}
	return failed == nil, failed
}

func (w *webhook) status(ctx context.Context, key string, review *authorizationv1.SubjectAccessReview) (authorizationv1.SubjectAccessReviewStatus, error) {
	w.mu.Lock()
	have, ok := w.kept[key]
	w.mu.Unlock()
	if ok && w.now().Before(have.until) {
		return have.status, nil
	}
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	var got authorizationv1.SubjectAccessReview
	if err := w.server.Ask(ctx, review, &got); err != nil {
		return got.Status, err
	}
	life := w.no
	if got.Status.Allowed {
		life = w.yes
	}
	if life > 0 && len(key) < maxKept {
		w.mu.Lock()
		if len(w.kept) >= maxAnswers {
			clear(w.kept)
		}
		w.kept[key] = answer{got.Status, w.now().Add(life)}
		w.mu.Unlock()
	}
	return got.Status, nil
}

// reviewOf is the question as a review.
func reviewOf(q *Attributes) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{User: q.User.Name, UID: q.User.UID, Groups: q.User.Groups}
	for key, values := range q.User.Extra {
		if spec.Extra == nil {
			spec.Extra = map[string]authorizationv1.ExtraValue{}
		}
		spec.Extra[key] = values
	}
	if q.Path != "" {
		spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: q.Path, Verb: q.Verb}
		return spec
	}
	r := &authorizationv1.ResourceAttributes{Namespace: q.Namespace, Verb: q.Verb, Group: q.Group, Version: q.Version,
		Resource: q.Resource, Subresource: q.Subresource, Name: q.Name}
	if all := fieldRequirements(q.FieldSelector); len(all) > 0 {
		r.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: all}
	}
	if all := labelRequirements(q.LabelSelector); len(all) > 0 {
		r.LabelSelector = &authorizationv1.LabelSelectorAttributes{Requirements: all}
	}
	spec.ResourceAttributes = r
	return spec
}

// fieldRequirements of a selector that cannot be read are none: it narrows nothing.
func fieldRequirements(selector string) []metav1.FieldSelectorRequirement {
	parsed, err := fields.ParseSelector(selector)
	if selector == "" || err != nil {
		return nil
	}
	var out []metav1.FieldSelectorRequirement
	for _, r := range parsed.Requirements() {
		op := metav1.FieldSelectorOpIn
		if r.Operator == selection.NotEquals {
			op = metav1.FieldSelectorOpNotIn
		}
		out = append(out, metav1.FieldSelectorRequirement{Key: r.Field, Operator: op, Values: []string{r.Value}})
	}
	return out
}

func labelRequirements(selector string) []metav1.LabelSelectorRequirement {
	parsed, err := labels.ParseToRequirements(selector)
	if selector == "" || err != nil {
		return nil
	}
	operators := map[selection.Operator]metav1.LabelSelectorOperator{
		selection.Equals: metav1.LabelSelectorOpIn, selection.DoubleEquals: metav1.LabelSelectorOpIn, selection.In: metav1.LabelSelectorOpIn,
		selection.NotEquals: metav1.LabelSelectorOpNotIn, selection.NotIn: metav1.LabelSelectorOpNotIn,
		selection.Exists: metav1.LabelSelectorOpExists, selection.DoesNotExist: metav1.LabelSelectorOpDoesNotExist,
	}
	var out []metav1.LabelSelectorRequirement
	for _, r := range parsed {
		if op, ok := operators[r.Operator()]; ok {
			out = append(out, metav1.LabelSelectorRequirement{Key: r.Key(), Operator: op, Values: slices.Sorted(slices.Values(r.ValuesUnsorted()))})
		}
	}
	return out
}

// selectors turns a review's selectors into the strings of a request. What is not
// known to narrow is left out.
func selectors(r *authorizationv1.ResourceAttributes) (field, label string) {
	if s := r.FieldSelector; s != nil {
		field = s.RawSelector
		var all []fields.Selector
		for _, q := range s.Requirements {
			switch {
			case q.Operator == metav1.FieldSelectorOpIn && len(q.Values) == 1:
				all = append(all, fields.OneTermEqualSelector(q.Key, q.Values[0]))
			case q.Operator == metav1.FieldSelectorOpNotIn && len(q.Values) == 1:
				all = append(all, fields.OneTermNotEqualSelector(q.Key, q.Values[0]))
			}
		}
		if field == "" && len(all) > 0 {
			field = fields.AndSelectors(all...).String()
		}
	}
	if s := r.LabelSelector; s != nil {
		label = s.RawSelector
		if parsed, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: s.Requirements}); label == "" && err == nil {
			label = parsed.String()
		}
	}
	return field, label
}
