package cli

import (
	"slices"
	"testing"
)

// Sampan's own flags may stand before kubectl's words, and nowhere else.
func TestKubectlTakesOwnFlags(t *testing.T) {
	s := &Settings{DataDir: DefaultDataDir}
	rest, err := s.take([]string{"--data-dir", "/a", "--run-dir=/b", "get", "--data-dir", "/c"})
	if err != nil || s.DataDir != "/a" || s.RunDir != "/b" || !slices.Equal(rest, []string{"get", "--data-dir", "/c"}) {
		t.Errorf("data %q, run %q, rest %q: %v", s.DataDir, s.RunDir, rest, err)
	}
	if _, err := s.take([]string{"--data-dir"}); err == nil {
		t.Error("a flag without its value was accepted")
	}
}

// Without a cluster kubectl would try localhost:8080 five times; it may run only
// when it needs none or was told of one.
func TestKubectlAsksServer(t *testing.T) {
	for want, lines := range map[bool][][]string{
		true:  {{"get", "pods"}, {"-n", "x", "get", "pods"}, {"version"}, {"apply", "-f", "help"}},
		false: {{}, {"help", "get"}, {"config", "view"}, {"version", "--client"}, {"get", "--server=x", "pods"}, {"--kubeconfig", "x", "get", "pods"}, {"get", "-h"}},
	} {
		for _, args := range lines {
			if got := asksServer(args); got != want {
				t.Errorf("kubectl %q asks a server: %v, want %v", args, got, want)
			}
		}
	}
}
