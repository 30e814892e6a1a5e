package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
