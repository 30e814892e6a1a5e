package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeOf makes a node of a zone; "+" is ready, "-" is not, "x" is not and is set aside.
func nodeOf(zone string, i int, how rune) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", zone, i), Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	ready := corev1.ConditionFalse
	if how == '+' {
		ready = corev1.ConditionTrue
	}
	if how == 'x' {
		n.Labels[aside] = ""
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	return n
}

// Whether a node that is not ready may lose its pods depends on how its zone is: how much
// of it, and how large it is itself, whatever the rest of the cluster has.
func TestPaceOfZones(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		zones map[string]string
		want  string // of the first node of zone "z" that is not ready, and of the next
	}{
		{"one of three", map[string]string{"z": "+-+"}, "evict, then wait 10s"},
		{"two of two, the others are well", map[string]string{"z": "--", "y": "+"}, "evict, then wait 10s"},
		{"two of three are too few to tell", map[string]string{"z": "--+"}, "evict, then wait 10s"},
		{"three of four", map[string]string{"z": "---+"}, "not"},
		{"a small zone of a large cluster", map[string]string{"z": "---+", "y": strings.Repeat("+", 90)}, "not"},
		{"a large zone", map[string]string{"z": strings.Repeat("-", 40) + strings.Repeat("+", 20)}, "evict, then wait 1m40s"},
		{"three of six", map[string]string{"z": "---+++"}, "evict, then wait 10s"},
		{"a zone that is gone whole, the others are well", map[string]string{"z": "-----", "y": "+"}, "evict, then wait 10s"},
		{"nobody is heard of", map[string]string{"z": "---", "y": "-"}, "not"},
		{"those set aside do not count", map[string]string{"z": "-xxx+"}, "evict, then wait 10s"},
		{"nor do they keep a cluster from being cut off", map[string]string{"z": "--x"}, "not"},
		{"nothing but such", map[string]string{"z": "x"}, "evict, then wait 10s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			z := newZones()
			var lost *corev1.Node
			for _, zone := range slices.Sorted(maps.Keys(c.zones)) {
				for i, how := range c.zones[zone] {
					n := nodeOf(zone, i, how)
					z.note(n.Name, n)
					if zone == "z" && how != '+' && lost == nil {
						lost = n
					}
				}
			}
			got := "not"
			if ok, _ := z.admit(lost, z.judge(), now); ok {
				_, wait := z.admit(lost, z.judge(), now)
				got = fmt.Sprintf("evict, then wait %s", wait)
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestMissingLabels(t *testing.T) {
	const os, arch, olderOS, olderArch = corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch"
	for _, c := range []struct {
		name         string
		labels, want map[string]string
	}{
		{"none", nil, map[string]string{}},
		{"both are there", map[string]string{os: "linux", olderOS: "linux", arch: "arm64", olderArch: "arm64"}, map[string]string{}},
		{"the older are missing", map[string]string{os: "linux", arch: "arm64"}, map[string]string{olderOS: "linux", olderArch: "arm64"}},
		{"one says something else", map[string]string{os: "linux", olderOS: "windows", arch: "arm64", olderArch: "arm64"}, map[string]string{olderOS: "linux"}},
		{"only the older are there", map[string]string{olderOS: "linux"}, map[string]string{}},
	} {
		if got := missingLabels(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: c.labels}}); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
