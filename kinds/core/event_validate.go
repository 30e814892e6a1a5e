package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The longest texts of an event.
const (
	maxEventWord = 128
	maxEventNote = 1024
)

func validateEvent(e *corev1.Event) field.ErrorList { return ValidateAnyEvent(e, "reportingComponent") }

func validateEventUpdate(e, _ *corev1.Event) field.ErrorList { return validateEvent(e) }

// ValidateAnyEvent checks what holds for events of either group; reporter is
// what the group calls the reporting controller.
func ValidateAnyEvent(e *corev1.Event, reporter string) field.ErrorList {
	var f kinds.Faults
	about := e.InvolvedObject.Namespace
	old := e.EventTime.IsZero()
	// Events about things without a namespace are in default; the new ones may
	// be in kube-system too, the old ones nowhere.
	home := e.Namespace == about || about == "" && (e.Namespace == "default" || (old && e.Namespace == "") || (!old && e.Namespace == "kube-system"))
	if !home && (old || about == "") {
		f.Invalid(kinds.NewPath("involvedObject").Child("namespace"), about, "does not match event.namespace")
	}
	if old {
		return f.List()
	}
	f.NonEmpty(kinds.NewPath(reporter), e.ReportingController)
	f.Each(kinds.NewPath(reporter), e.ReportingController, validation.IsQualifiedName(e.ReportingController))
	for _, text := range []struct {
		field, value string
		required     bool
		limit        int
	}{
		{"reportingInstance", e.ReportingInstance, true, maxEventWord},
		{"action", e.Action, true, maxEventWord},
		{"reason", e.Reason, true, maxEventWord},
		{"message", e.Message, false, maxEventNote},
	} {
		at := kinds.NewPath(text.field)
		if text.required {
			f.NonEmpty(at, text.value)
		}
		if len(text.value) > text.limit {
			f.Invalid(at, "", fmt.Sprintf("can have at most %v characters", text.limit))
		}
	}
	return f.List()
}
