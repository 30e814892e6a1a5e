package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLogLinks: a container's log is found by a link as long as the container is there.
func TestLogLinks(t *testing.T) {
	root := filepath.Join(t.TempDir(), "pods")
	a := &Agent{cfg: Config{LogRoot: root, Log: slog.New(slog.DiscardHandler)}, node: spec.Node{LogRoot: root}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}}
	links := filepath.Join(filepath.Dir(root), "containers")
	a.link(pod, "c", "id0", 0)
	if got := names(t, links); len(got) != 0 {
		t.Errorf("links without logs: %v", got)
	}
	log := filepath.Join(root, "ns_p_u", "c", "0.log")
	touch(t, log)
	for range 2 {
		a.link(pod, "c", "id0", 0)
	}
	if target, err := os.Readlink(filepath.Join(links, "p_ns_c-id0.log")); err != nil || target != log {
		t.Errorf("link to %q, %v", target, err)
	}
	a.link(pod, "c", strings.Repeat("x", 300), 0)
	if long := names(t, links)[1]; len(long) != 255 || !strings.HasSuffix(long, "x.log") {
		t.Errorf("a long name: %q", long)
	}
	a.unlink("p", "ns", "c", strings.Repeat("x", 300))
	touch(t, filepath.Join(root, "ns_q_v", "c", "0.log"))
	for name, target := range map[string]string{"other": "/elsewhere", "dead": filepath.Join(root, "gone")} {
		if err := os.Symlink(target, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepLinks(root, false); err != nil {
		t.Fatal(err)
	}
	if got := names(t, links); !slices.Equal(got, []string{"other", "p_ns_c-id0.log"}) {
		t.Errorf("left: %v", got)
	}
	a.unlink("p", "ns", "c", "id0")
	if got := names(t, links); !slices.Equal(got, []string{"other"}) {
		t.Errorf("left: %v", got)
	}
}

// TestLogsElsewhere: with logs in a directory of others Purge removes those of our pods
// alone, and what leads to them.
func TestLogsElsewhere(t *testing.T) {
	dir := t.TempDir()
	usual, logs := filepath.Join(dir, "data", "logs", "pods"), filepath.Join(dir, "var", "pods")
	for range 2 {
		if err := pointTo(usual, logs); err != nil {
			t.Fatal(err)
		}
	}
	for _, pod := range []string{"ns_ours_u1", "ns_theirs_u2"} {
		touch(t, filepath.Join(logs, pod, "c", "0.log"))
	}
	links := filepath.Join(dir, "var", "containers")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"ns_ours_u1", "ns_theirs_u2"} {
		if err := os.Symlink(filepath.Join(logs, pod, "c", "0.log"), filepath.Join(links, pod)); err != nil {
			t.Fatal(err)
		}
	}
	if err := purgeLogs(usual, []string{"u1"}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, logs); !slices.Equal(got, []string{"ns_theirs_u2"}) {
		t.Errorf("logs: %v", got)
	}
	if got := names(t, links); !slices.Equal(got, []string{"ns_theirs_u2"}) {
		t.Errorf("links: %v", got)
	}
	if _, err := os.Lstat(usual); err == nil {
		t.Error("the link at the usual place is left")
	}
}

// TestLogsComeBack: what leads elsewhere gives way when the logs are at the usual place
// again; logs that are there stay.
func TestLogsComeBack(t *testing.T) {
	dir := t.TempDir()
	usual := filepath.Join(dir, "logs", "pods")
	for _, logs := range []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), usual} {
		if err := pointTo(usual, logs); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Lstat(usual); err != nil || !info.IsDir() {
		t.Fatalf("%v, %v", info, err)
	}
	touch(t, filepath.Join(usual, "ns_p_u", "c", "0.log"))
	if err := pointTo(usual, filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, usual); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	if err := purgeLogs(usual, nil); err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Join(dir, "logs")); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
