package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// Of what was printed before, those lines are shown that are asked for, whole.
func TestPastLines(t *testing.T) {
	const text = "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02.5Z two words\nno time\n2026-01-01T00:00:03Z cut"
	at := func(second int) time.Time { return time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC) }
	for want, l := range map[string]logQuery{
		"one\ntwo words\ncut\n": {}, "two words\ncut\n": {since: at(2)}, "one\n": {until: at(2)}, "": {since: at(2), until: at(2)},
	} {
		var got strings.Builder
		for _, line := range pastLines([]byte(text), "Stdout", l) {
			got.WriteString(line.text)
		}
		if got.String() != want {
			t.Errorf("%v: %q, want %q", l, got.String(), want)
		}
	}
}

// The newest lines are whole, and no more than there is room for.
func TestNewest(t *testing.T) {
	for most, want := range map[int]string{100: "aaa\nbb\nc\n", 9: "aaa\nbb\nc\n", 8: "bb\nc\n", 5: "c\n", 1: ""} {
		if got := newest([]byte("aaa\nbb\nc\n"), most); string(got) != want {
			t.Errorf("%d: %q, want %q", most, got, want)
		}
	}
	n := newestOf{to: &bytes.Buffer{}, most: 10}
	for range 100 {
		if _, err := n.Write([]byte("1234\n")); err != nil || n.to.Len() > 20 {
			t.Fatalf("%d bytes, %v", n.to.Len(), err)
		}
	}
}

// What a container has printed goes with it, and an ID that somebody has made up leads
// nowhere else.
func TestPastGoes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("what is kept is root's")
	}
	s := Settings{DataDir: t.TempDir()}
	pod := func(id string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "aa-bb", Annotations: map[string]string{idAnnotation: id}}}
	}
	if path, ok := s.pastLog(pod("../../etc/passwd"), "Stdout"); ok {
		t.Errorf("it leads to %s", path)
	}
	here, gone := pod("ab-cd"), pod("ef01")
	var paths []string
	for _, p := range []*corev1.Pod{here, gone} {
		path, ok := s.pastLog(p, "Stdout")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil || !ok {
			t.Fatal(ok, err)
		}
		paths = append(paths, path)
	}
	there := func() (n int) {
		for _, path := range paths {
			if _, err := os.Stat(path); err == nil {
				n++
			}
		}
		return n
	}
	if err := s.prunePast([]*corev1.Pod{here}, time.Now().Add(-time.Hour)); err != nil || there() != 2 {
		t.Errorf("what is new: %v, %d are there", err, there())
	}
	if err := s.prunePast([]*corev1.Pod{here}, time.Now().Add(time.Hour)); err != nil || there() != 1 {
		t.Errorf("%v, %d are there", err, there())
	}
	if err := s.dropPast(here); err != nil || there() != 0 {
		t.Errorf("%v, %d are there", err, there())
	}
}

// loggedNode is a node whose container prints a line to each of its outputs in each of its
// runs, and which has the last two.
type loggedNode struct {
	client.Transport
	run int
	// fails: it does not answer for the run that there is.
	fails bool
}

// RoundTrip answers for a log.
func (n *loggedNode) RoundTrip(r *http.Request) (*http.Response, error) {
	q, run := r.URL.Query(), n.run
	if q.Get("previous") != "" {
		run--
	}
	answer := &http.Response{StatusCode: http.StatusOK, Request: r, Body: http.NoBody}
	if n.fails && run == n.run {
		answer.StatusCode = http.StatusBadGateway
		return answer, nil
	}
	if q.Get("timestamps") != "" {
		line := fmt.Sprintf("2026-01-01T00:%02d:00Z %s of %d\n", run, q.Get("stream"), run)
		answer.Body = io.NopCloser(strings.NewReader(line))
	}
	return answer, nil
}

// What a pod has printed is kept in the order of its runs, each output on its own, and
// added to with each pod that takes its place; what can't be read leaves the rest alone.
func TestKeepPast(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("what is kept is root's")
	}
	n := &loggedNode{}
	r := &renewal{
		settings: &Settings{DataDir: t.TempDir()},
		server:   &server{Transport: n, records: explain.Server{URL: "http://node", Client: &http.Client{Transport: n}}},
	}
	pod := stagedPod(0, corev1.PodFailed)
	pod.Annotations = map[string]string{idAnnotation: "abc1"}
	has := func(output, want string) {
		t.Helper()
		path, ok := r.settings.pastLog(pod, output)
		got, err := os.ReadFile(path)
		if string(got) != want || err != nil || !ok {
			t.Errorf("%s: %q, %v; want %q", output, got, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	keep := func(run int) error {
		n.run = run
		pod.Status = stagedPod(run, corev1.PodFailed).Status
		return r.keepPast(t.Context(), pod)
	}
	if err := keep(0); err != nil {
		t.Fatal(err)
	}
	has("Stdout", "2026-01-01T00:00:00Z Stdout of 0\n")
	has("Stderr", "2026-01-01T00:00:00Z Stderr of 0\n")
	if err := keep(3); err != nil { // the node has no more than two of its four
		t.Fatal(err)
	}
	const all = "2026-01-01T00:00:00Z Stdout of 0\n2026-01-01T00:02:00Z Stdout of 2\n2026-01-01T00:03:00Z Stdout of 3\n"
	has("Stdout", all)
	n.fails = true
	if err := keep(4); err == nil {
		t.Error("nobody is told that a run is lost")
	}
	has("Stdout", all)
}
