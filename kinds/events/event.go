// Package events says what the events.k8s.io group's Event is: another view of
// the core group's, under which it is stored.
package events

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{Event()} }

// Event is the kind that reports what happened to an object.
func Event() *kinds.Kind {
	return &kinds.Kind{
		GVK:        eventsv1.SchemeGroupVersion.WithKind("Event"),
		Resource:   "events",
		Singular:   "event",
		Short:      []string{"ev"},
		Namespaced: true,
		Storage:    "events",
		New:        func() kinds.Object { return &eventsv1.Event{} },
		NewList:    func() runtime.Object { return &eventsv1.EventList{} },
		TTL:        func(kinds.Object) time.Duration { return core.EventTTL },
		Strategy: kinds.Strategy{
			NoDependents:   true,
			Validate:       kinds.Check(validate),
			ValidateUpdate: kinds.CheckUpdate(validateUpdate),
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: core.EventColumns(),
			Row: kinds.Row(func(e *eventsv1.Event, now time.Time) []any {
				return core.EventRow(toCore(e), now)
			}),
		},
		FieldLabels: []string{
			"regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid",
			"regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath",
			"reason", "reportingController", "type",
		},
		Fields: kinds.Fields(selectable),
		View: &kinds.View{
			Stored:     corev1.SchemeGroupVersion.WithKind("Event"),
			ToStored:   func(obj kinds.Object) kinds.Object { return toCore(obj.(*eventsv1.Event)) },
			FromStored: func(obj kinds.Object) kinds.Object { return fromCore(obj.(*corev1.Event)) },
		},
	}
}

func selectable(e *eventsv1.Event) fields.Set {
	return fields.Set{
		"regarding.kind":            e.Regarding.Kind,
		"regarding.namespace":       e.Regarding.Namespace,
		"regarding.name":            e.Regarding.Name,
		"regarding.uid":             string(e.Regarding.UID),
		"regarding.apiVersion":      e.Regarding.APIVersion,
		"regarding.resourceVersion": e.Regarding.ResourceVersion,
		"regarding.fieldPath":       e.Regarding.FieldPath,
		"reason":                    e.Reason,
		"reportingController":       e.ReportingController,
		"type":                      e.Type,
	}
}

func toCore(e *eventsv1.Event) *corev1.Event {
	in := e.DeepCopy()
	out := &corev1.Event{
		ObjectMeta:          in.ObjectMeta,
		InvolvedObject:      in.Regarding,
		Reason:              in.Reason,
		Message:             in.Note,
		Source:              in.DeprecatedSource,
		FirstTimestamp:      in.DeprecatedFirstTimestamp,
		LastTimestamp:       in.DeprecatedLastTimestamp,
		Count:               in.DeprecatedCount,
		Type:                in.Type,
		EventTime:           in.EventTime,
		Action:              in.Action,
		Related:             in.Related,
		ReportingController: in.ReportingController,
		ReportingInstance:   in.ReportingInstance,
	}
	out.APIVersion, out.Kind = "v1", "Event"
	if in.Series != nil {
		out.Series = &corev1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	return out
}

func fromCore(e *corev1.Event) *eventsv1.Event {
	in := e.DeepCopy()
	out := &eventsv1.Event{
		ObjectMeta:               in.ObjectMeta,
		Regarding:                in.InvolvedObject,
		Reason:                   in.Reason,
		Note:                     in.Message,
		DeprecatedSource:         in.Source,
		DeprecatedFirstTimestamp: in.FirstTimestamp,
		DeprecatedLastTimestamp:  in.LastTimestamp,
		DeprecatedCount:          in.Count,
		Type:                     in.Type,
		EventTime:                in.EventTime,
		Action:                   in.Action,
		Related:                  in.Related,
		ReportingController:      in.ReportingController,
		ReportingInstance:        in.ReportingInstance,
	}
	out.APIVersion, out.Kind = "events.k8s.io/v1", "Event"
	if in.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	return out
}
