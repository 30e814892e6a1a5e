package agent

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// The answer to the last write of a pod that is deleted, and the watch's word of it,
// may come in one: the step that hears both finds out only at its end that the pod
// may go, and nobody would wake its owner again.
func TestReleaseFollowsTheLastReport(t *testing.T) {
	engine := agenttest.New()
	defer engine.Close()
	dir := t.TempDir()
	a, err := New(Config{
		Kubelet: &settings.Kubelet{}, NodeName: "n1", NodeIPs: []string{"192.0.2.1"}, Transport: clienttest.NewMemory(), Engine: engine,
		Root: dir, CgroupMount: dir, Sys: dir, LogMaxSize: -1, PodCIDR: "10.0.0.0/24", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := pod("ends", container("app", "app"))
	p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	m := newMachine(a, p)
	m.stage = releasing
	p = p.DeepCopy()
	p.Status.Phase = corev1.PodFailed
	m.status, m.frozen = p.Status, true
	m.results = append(m.results, func(m *machine) { m.sent(p, nil) })
	m.want(p, false)
	<-m.bell
	again := m.step(t.Context())
	select {
	case <-m.bell:
	default:
		t.Fatalf("nobody looks again for %s", again)
	}
	m.step(t.Context())
	if m.ops[opRelease] == nil {
		t.Error("what the pod holds is not released")
	}
}
