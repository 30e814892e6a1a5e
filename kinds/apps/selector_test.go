package apps

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

func TestSelectors(t *testing.T) {
	labels := func(keys ...string) map[string]string {
		out := map[string]string{}
		for _, key := range keys {
			out[key] = "b"
		}
		return out
	}
	broken := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: metav1.LabelSelectorOpIn}}}
	mismatch := "spec.template.metadata.labels: FieldValueInvalid"
	for name, c := range map[string]struct {
		selector     *metav1.LabelSelector
		most, daemon []string
		unread       bool
	}{
		"right":   {selector: &metav1.LabelSelector{MatchLabels: labels("a")}},
		"missing": {most: []string{"spec.selector: FieldValueRequired", mismatch}, daemon: []string{mismatch}},
		"empty": {selector: &metav1.LabelSelector{}, most: []string{"spec.selector: FieldValueInvalid"},
			daemon: []string{"spec.selector: FieldValueInvalid"}},
		"another": {selector: &metav1.LabelSelector{MatchLabels: labels("c")}, most: []string{mismatch}, daemon: []string{mismatch}},
		"broken": {selector: broken, unread: true,
			most:   []string{"spec.selector.matchExpressions[0].values: FieldValueRequired", "spec.selector: FieldValueInvalid"},
			daemon: []string{"spec.selector.matchExpressions[0].values: FieldValueRequired"}},
	} {
		t.Run(name, func(t *testing.T) {
			template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels("a")}}
			var most, daemon kinds.Faults
			if read := checkSelector(&most, c.selector, template, "set", "unreadable"); read == c.unread {
				t.Errorf("the selector can be read: %v", read)
			}
			checkDaemonSelector(&daemon, c.selector, template)
			if got := short(&most); !slices.Equal(got, c.most) {
				t.Errorf("got %q, want %q", got, c.most)
			}
			if got := short(&daemon); !slices.Equal(got, c.daemon) {
				t.Errorf("a daemon set: got %q, want %q", got, c.daemon)
			}
		})
	}
}

func short(f *kinds.Faults) (out []string) {
	for _, fault := range f.List() {
		out = append(out, fault.Field+": "+string(fault.Type))
	}
	return out
}
