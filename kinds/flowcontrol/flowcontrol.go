// Package flowcontrol says what the kinds of the flowcontrol.apiserver.k8s.io
// group are, and which objects of them every cluster has (Mandatory, Suggested).
package flowcontrol

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{FlowSchema(), PriorityLevelConfiguration()}
}

// FlowSchema is the kind that sorts requests into flows, and flows into levels.
func FlowSchema() *kinds.Kind {
	return &kinds.Kind{
		GVK:      flowcontrolv1.SchemeGroupVersion.WithKind("FlowSchema"),
		Resource: "flowschemas",
		Singular: "flowschema",
		Storage:  "flowschemas",
		New:      func() kinds.Object { return &flowcontrolv1.FlowSchema{} },
		NewList:  func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate: true,
			Default:       kinds.Each(defaultSchema),
			PrepareCreate: kinds.Each(func(s *flowcontrolv1.FlowSchema) {
				s.Status = flowcontrolv1.FlowSchemaStatus{}
				kinds.FirstGeneration(s)
			}),
			PrepareUpdate: kinds.Pair(func(s, old *flowcontrolv1.FlowSchema) {
				s.Status = old.Status
				kinds.NextGeneration(s, old, !kinds.Same(s.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateSchema),
			ValidateUpdate: kinds.CheckUpdate(validateSchemaUpdate),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(map[string]string{
				"PriorityLevel":       flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"],
				"MatchingPrecedence":  flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()["matchingPrecedence"],
				"DistinguisherMethod": flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()["distinguisherMethod"],
				"MissingPL":           "references a broken or non-existent PriorityLevelConfiguration",
			}, "Name", "PriorityLevel", "MatchingPrecedence", "DistinguisherMethod", "Age", "MissingPL"),
			Row:   kinds.Row(schemaRow),
			Order: byPrecedence,
		},
		Subresources: []kinds.Subresource{ownStatus(
			func(next, body *flowcontrolv1.FlowSchema) { next.Status = body.Status }, validateSchemaStatus)},
	}
}

// PriorityLevelConfiguration is the kind that gives flows their share of the server.
func PriorityLevelConfiguration() *kinds.Kind {
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	return &kinds.Kind{
		GVK:      flowcontrolv1.SchemeGroupVersion.WithKind("PriorityLevelConfiguration"),
		Resource: "prioritylevelconfigurations",
		Singular: "prioritylevelconfiguration",
		Storage:  "prioritylevelconfigurations",
		New:      func() kinds.Object { return &flowcontrolv1.PriorityLevelConfiguration{} },
		NewList:  func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate: true,
			Default:       kinds.Each(defaultLevel),
			PrepareCreate: kinds.Each(func(l *flowcontrolv1.PriorityLevelConfiguration) {
				l.Status = flowcontrolv1.PriorityLevelConfigurationStatus{}
				kinds.FirstGeneration(l)
			}),
			PrepareUpdate: kinds.Pair(func(l, old *flowcontrolv1.PriorityLevelConfiguration) {
				l.Status = old.Status
				kinds.NextGeneration(l, old, !kinds.Same(l.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateLevel),
			ValidateUpdate: kinds.CheckUpdate(validateLevelUpdate),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(map[string]string{
				"Type":                     flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"],
				"NominalConcurrencyShares": flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"],
				"Queues":                   queuing["queues"],
				"HandSize":                 queuing["handSize"],
				"QueueLengthLimit":         queuing["queueLengthLimit"],
			}, "Name", "Type", "NominalConcurrencyShares", "Queues", "HandSize", "QueueLengthLimit", "Age"),
			Row: kinds.Row(levelRow),
		},
		Subresources: []kinds.Subresource{ownStatus(
			func(next, body *flowcontrolv1.PriorityLevelConfiguration) { next.Status = body.Status }, validateLevelStatus)},
	}
}

// ownStatus is a status subresource that changes nothing but the status: unlike
// most kinds, these two keep even their labels and annotations.
func ownStatus[T kinds.Object](take func(next, body T), validate func(obj, old T) field.ErrorList) kinds.Subresource {
	s := kinds.StatusRules(take, validate)
	s.Copy = func(next kinds.Object, body runtime.Object) error {
		from, ok := body.(T)
		if !ok {
			return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
		}
		take(next.(T), from.DeepCopyObject().(T))
		return nil
	}
	return s
}

func schemaRow(s *flowcontrolv1.FlowSchema, now time.Time) []any {
	method, missing := kinds.None, "?"
	if m := s.Spec.DistinguisherMethod; m != nil {
		method = string(m.Type)
	}
	for _, c := range s.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			missing = string(c.Status)
			break
		}
	}
	return []any{s.Name, s.Spec.PriorityLevelConfiguration.Name, int64(s.Spec.MatchingPrecedence), method, kinds.Created(s, now), missing}
}

func levelRow(l *flowcontrolv1.PriorityLevelConfiguration, now time.Time) []any {
	row := []any{l.Name, string(l.Spec.Type), kinds.None, kinds.None, kinds.None, kinds.None, kinds.Created(l, now)}
	limited := l.Spec.Limited
	if limited == nil {
		return row
	}
	row[2] = int64(kinds.Deref(limited.NominalConcurrencyShares))
	if q := limited.LimitResponse.Queuing; q != nil {
		row[3], row[4], row[5] = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
	}
	return row
}

// byPrecedence is the order in which schemas are asked, and shown.
func byPrecedence(a, b kinds.Object) int {
	x, ok1 := a.(*flowcontrolv1.FlowSchema)
	y, ok2 := b.(*flowcontrolv1.FlowSchema)
	if !ok1 || !ok2 {
		return 0
	}
	return cmp.Or(cmp.Compare(x.Spec.MatchingPrecedence, y.Spec.MatchingPrecedence), strings.Compare(x.Name, y.Name))
}
