package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// TestShutdown: ordinary pods go first and critical ones last, each with the time
// of its group; nothing new comes, and the node says why.
func TestShutdown(t *testing.T) {
	tell(t, "shutdown", func(s *story) {
		s.stopAgent()
		s.kubelet.ShutdownGracePeriod = metav1.Duration{Duration: 30 * time.Second}
		s.kubelet.ShutdownGracePeriodCriticalPods = metav1.Duration{Duration: 10 * time.Second}
		ending := make(chan struct{})
		s.ending = ending
		s.engine.Images["stubborn"] = agenttest.Stubborn
		s.startAgent()
		vital, priority := pod("vital", container("app", "app")), int32(systemCritical)
		vital.Spec.Priority = &priority
		s.create(vital)
		s.create(pod("stubborn", container("app", "stubborn")))
		s.pass(time.Second)
		s.say("> the machine goes down")
		close(ending)
		s.pass(time.Second)
		s.create(pod("late", container("app", "app")))
		s.pass(time.Minute)
		s.say("stubborn: %s", s.get("stubborn").Status.Message)
		s.say("late: %s", s.get("late").Status.Message)
		n, err := client.Nodes.Get(s.ctx, s.api, "", "n1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				s.say("node Ready=%s %s: %s", c.Status, c.Reason, c.Message)
			}
		}
	})
}

// TestShutdownIsRemembered: when the node went down last is in upstream's file, and the
// agent after it tells so. What is no such file is nothing.
func TestShutdownIsRemembered(t *testing.T) {
	root := t.TempDir()
	figures := func(act func(*Agent)) map[string]float64 {
		a := &Agent{cfg: Config{KubeletRoot: root, Log: slog.New(slog.DiscardHandler)}, tally: tally.New("n1")}
		act(a)
		all := prometheus.NewRegistry()
		all.MustRegister(a.tally)
		families, err := all.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			if name, is := strings.CutPrefix(f.GetName(), "kubelet_graceful_shutdown_"); is {
				got[name] = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return got
	}
	begin := time.Unix(1_700_000_000, 0).UTC()
	for _, step := range []struct {
		name       string
		down       func(*Agent)
		start, end float64
		file       string
	}{
		{"never", func(*Agent) {}, 0, 0, ""},
		{"cut off", func(a *Agent) { a.goesDown(lastShutdown{Start: begin}) }, 1.7e9, 0, `{"startTime":"2023-11-14T22:13:20Z","endTime":"0001-01-01T00:00:00Z"}`},
		{"in time", func(a *Agent) { a.goesDown(lastShutdown{Start: begin, End: begin.Add(9 * time.Second)}) }, 1.7e9, 1.7e9 + 9, `{"startTime":"2023-11-14T22:13:20Z","endTime":"2023-11-14T22:13:29Z"}`},
		{"spoilt", func(*Agent) {
			if err := os.WriteFile(filepath.Join(root, shutdownFile), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 0, 0, "{"},
	} {
		figures(step.down)
		got := figures((*Agent).recallShutdown)
		if got["start_time_seconds"] != step.start || got["end_time_seconds"] != step.end {
			t.Errorf("%s: the next agent tells %v", step.name, got)
		}
		if file, err := os.ReadFile(filepath.Join(root, shutdownFile)); string(file) != step.file || (err != nil) != (step.file == "") {
			t.Errorf("%s: the file is %q, %v", step.name, file, err)
		}
	}
}
