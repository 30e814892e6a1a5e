package daemonset

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/controller/history"
)

// Revisions that pods are of stay and count: what is left of the limit is for others.
func TestExpendable(t *testing.T) {
	for _, c := range []struct {
		why, live, want string
		limit           int
	}{
		{"none is too many", "", "", 5},
		{"the oldest go", "", "1 2", 3},
		{"but not what lives", "1", "2 3", 3},
		{"which counts", "2 4", "1 3", 3},
		{"though it is more than the limit", "1 2 3", "4 5", 1},
		{"none is kept", "", "1 2 3 4 5", 0},
	} {
		var all []*history.Revision
		for i := range 5 {
			name := fmt.Sprint(i + 1)
			all = append(all, &history.Revision{ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{appsv1.DefaultDaemonSetUniqueLabelKey: name}}})
		}
		live := map[string]bool{}
		for _, name := range strings.Fields(c.live) {
			live[name] = true
		}
		var got []string
		for _, r := range expendable(all, live, c.limit) {
			got = append(got, r.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %q", c.why, got, c.want)
		}
	}
}
