package register

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// What a node runs short of, and what it has again, is told in upstream's words.
func TestTurns(t *testing.T) {
	with := func(high ...corev1.NodeConditionType) (s corev1.NodeStatus) {
		for _, p := range []pressure{memoryPressure, diskPressure, pidPressure} {
			s.Conditions = append(s.Conditions, p.is(slices.Contains(high, p.condition)))
		}
		return s
	}
	for _, c := range []struct {
		before, now corev1.NodeStatus
		want        []string
	}{
		{with(), with(), nil},
		{corev1.NodeStatus{}, with(), nil},
		{with(), with(corev1.NodeDiskPressure, corev1.NodeMemoryPressure), []string{"NodeHasInsufficientMemory", "NodeHasDiskPressure"}},
		{with(corev1.NodeDiskPressure), with(corev1.NodePIDPressure), []string{"NodeHasNoDiskPressure", "NodeHasInsufficientPID"}},
		{with(corev1.NodePIDPressure), with(), []string{"NodeHasSufficientPID"}},
	} {
		if got := turns(c.before, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%v, want %v", got, c.want)
		}
	}
	boot := func(id string) (s corev1.NodeStatus) {
		s.NodeInfo.BootID = id
		return s
	}
	if rebooted(boot(""), boot("a")) || rebooted(boot("a"), boot("a")) || !rebooted(boot("a"), boot("b")) {
		t.Error("a reboot is another boot id than there was")
	}
}
