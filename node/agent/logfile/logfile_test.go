package logfile

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

const sample = `2026-01-01T00:00:01.000000000Z stdout F one
2026-01-01T00:00:02.000000000Z stderr F two
2026-01-01T00:00:03.000000000Z stdout P thr
2026-01-01T00:00:03.000000001Z stdout F ee
torn
2026-01-01T00:00:04.000000000Z stdout F four
`

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	since, _ := time.Parse(time.RFC3339, "2026-01-01T00:00:03Z")
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"all":        {Options{Tail: -1, Limit: -1}, "one\ntwo\nthree\nfour\n"},
		"tail":       {Options{Tail: 1, Limit: -1}, "four\n"},
		"tail none":  {Options{Tail: 0, Limit: -1}, ""},
		"tail more":  {Options{Tail: 100, Limit: -1}, "one\ntwo\nthree\nfour\n"},
		"limit":      {Options{Tail: -1, Limit: 6}, "one\ntw"},
		"since":      {Options{Tail: -1, Limit: -1, Since: since}, "three\nfour\n"},
		"stderr":     {Options{Tail: -1, Limit: -1, Stream: "stderr"}, "two\n"},
		"timestamps": {Options{Tail: 1, Limit: -1, Timestamps: true}, "2026-01-01T00:00:04.000000000Z four\n"},
	} {
		var out strings.Builder
		if err := Read(t.Context(), Log{Path: path}, c.o, &out); err != nil || out.String() != c.want {
			t.Errorf("%s: %q (%v), want %q", name, out.String(), err, c.want)
		}
	}
}

// lines is a writer whose contents can be waited for.
type lines struct {
	mu   sync.Mutex
	text string
	more chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	for {
		l.mu.Lock()
		have := l.text
		l.mu.Unlock()
		if have == want {
			return
		}
		select {
		case <-l.more:
		case <-time.After(time.Minute):
			t.Fatalf("have %q, want %q", have, want)
		}
	}
}

// TestFollow follows a log through growth, rotation and its container's end.
func TestFollow(t *testing.T) {
	engine := agenttest.New()
	defer engine.Close()
	box, err := engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: "p", Uid: "u"}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: box.GetPodSandboxId(), Config: &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: "c"}, Image: &rt.ImageSpec{Image: "app"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "0.log")
	add := func(text string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	add("2026-01-01T00:00:01Z stdout F one\n")
	out := &lines{more: make(chan struct{}, 1)}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	go func() {
		log := Log{Path: path, ID: c.GetContainerId(), Running: true, Engine: engine}
		done <- Read(ctx, log, Options{Follow: true, Tail: -1, Limit: -1}, out)
	}()
	out.wait(t, "one\n")
	add("2026-01-01T00:00:02Z stdout F t")
	add("wo\n")
	out.wait(t, "one\ntwo\n")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	add("2026-01-01T00:00:03Z stdout F three\n")
	out.wait(t, "one\ntwo\nthree\n")
	if _, err := engine.StopContainer(t.Context(), &rt.StopContainerRequest{ContainerId: c.GetContainerId(), Timeout: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
