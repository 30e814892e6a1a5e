package events

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// validate checks a new event, more strictly than the core group does. Messages
// speak of the stored form, as upstream's.
func validate(event *eventsv1.Event) field.ErrorList {
	var f kinds.Faults
	e := toCore(event)
	f.Join(core.ValidateAnyEvent(e, "reportingController"))
	checkSeries(&f, e)
	if e.EventTime.IsZero() {
		f.Required(kinds.NewPath("eventTime"), "")
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		f.Invalid(kinds.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type))
	}
	for _, old := range []struct {
		field string
		set   bool
	}{
		{"firstTimestamp", !e.FirstTimestamp.IsZero()},
		{"lastTimestamp", !e.LastTimestamp.IsZero()},
		{"count", e.Count != 0},
		{"source", e.Source != corev1.EventSource{}},
	} {
		if old.set {
			f.Invalid(kinds.NewPath(old.field), "", "needs to be unset")
		}
	}
	return f.List()
}

func checkSeries(f *kinds.Faults, e *corev1.Event) {
	if e.Series == nil {
		return
	}
	if e.Series.Count < 2 {
		f.Invalid(kinds.NewPath("series.count"), "", "should be at least 2")
	}
	if e.Series.LastObservedTime.IsZero() {
		f.Required(kinds.NewPath("series.lastObservedTime"), "")
	}
}

// validateUpdate: of an event only the series moves.
func validateUpdate(event, oldEvent *eventsv1.Event) field.ErrorList {
	var f kinds.Faults
	e, old := toCore(event), toCore(oldEvent)
	f.Join(core.ValidateAnyEvent(e, "reportingController"))
	if !kinds.Same(e.Series, old.Series) {
		checkSeries(&f, e)
	}
	for _, fixed := range []struct {
		field    string
		now, was any
	}{
		{"involvedObject", e.InvolvedObject, old.InvolvedObject},
		{"reason", e.Reason, old.Reason},
		{"message", e.Message, old.Message},
		{"source", e.Source, old.Source},
		{"firstTimestamp", e.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", e.LastTimestamp, old.LastTimestamp},
		{"count", e.Count, old.Count},
		{"type", e.Type, old.Type},
		// Clients lose what is finer than a microsecond on the way.
		{"eventTime", micro(e), micro(old)},
		{"action", e.Action, old.Action},
		{"related", e.Related, old.Related},
		{"reportingController", e.ReportingController, old.ReportingController},
		{"reportingInstance", e.ReportingInstance, old.ReportingInstance},
	} {
		f.Immutable(kinds.NewPath(fixed.field), fixed.now, fixed.was)
	}
	return f.List()
}

func micro(e *corev1.Event) metav1.MicroTime {
	return metav1.NewMicroTime(e.EventTime.Truncate(time.Microsecond).UTC())
}
