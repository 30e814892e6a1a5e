package core

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// EventTTL is how long an event is kept after its last write.
const EventTTL = time.Hour

// Event is the kind that reports what happened to an object.
func Event() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Event"),
		Resource:   "events",
		Singular:   "event",
		Short:      []string{"ev"},
		Namespaced: true,
		Storage:    "events",
		New:        func() kinds.Object { return &corev1.Event{} },
		NewList:    func() runtime.Object { return &corev1.EventList{} },
		TTL:        func(kinds.Object) time.Duration { return EventTTL },
		Strategy: kinds.Strategy{
			AnyFinalizer:   true,
			NoDependents:   true,
			Validate:       kinds.Check(validateEvent),
			ValidateUpdate: kinds.CheckUpdate(validateEventUpdate),
			// Events get whatever name their reporter thinks of: any path segment.
			ValidateName:   kinds.PathName,
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: EventColumns(),
			Row:     kinds.Row(EventRow),
		},
		FieldLabels: []string{
			"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
			"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
			"reason", "reportingComponent", "source", "type",
		},
		Fields: kinds.Fields(eventFields),
	}
}

func eventFields(e *corev1.Event) fields.Set {
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	return fields.Set{
		"involvedObject.kind":            e.InvolvedObject.Kind,
		"involvedObject.namespace":       e.InvolvedObject.Namespace,
		"involvedObject.name":            e.InvolvedObject.Name,
		"involvedObject.uid":             string(e.InvolvedObject.UID),
		"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
		"reason":                         e.Reason,
		"reportingComponent":             e.ReportingController,
		"source":                         source,
		"type":                           e.Type,
	}
}

// EventColumns are the columns of events in either group.
func EventColumns() []metav1.TableColumnDefinition {
	return kinds.Explained(eventTexts(), "Last Seen", "Type", "Reason", "Object", "Subobject|wide", "Source|wide",
		"Message", "First Seen|wide", "Count|wide", "Name|wide")
}

// EventRow are the cells of an event.
func EventRow(e *corev1.Event, now time.Time) []any {
	first := kinds.Age(e.FirstTimestamp, now)
	if e.FirstTimestamp.IsZero() {
		first = kinds.Age(metav1.Time{Time: e.EventTime.Time}, now)
	}
	last := kinds.Age(e.LastTimestamp, now)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := max(e.Count, 1)
	if e.Series != nil {
		last = kinds.Age(metav1.Time{Time: e.Series.LastObservedTime.Time}, now)
		count = e.Series.Count
	}
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	return []any{last, e.Type, e.Reason, target, e.InvolvedObject.FieldPath, eventSource(e),
		strings.TrimSpace(e.Message), first, int64(count), e.Name}
}

func eventSource(e *corev1.Event) string {
	component, host := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if host == "" {
		host = e.ReportingInstance
	}
	if host == "" {
		return component
	}
	return component + ", " + host
}
