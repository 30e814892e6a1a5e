package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// TestEngineOf: the flag goes before the configuration, and our own socket is our own engine.
func TestEngineOf(t *testing.T) {
	for _, c := range []struct{ flag, said, want string }{
		{"", "", ""},
		{"", "unix:///run/containerd/containerd.sock", "unix:///run/containerd/containerd.sock"},
		{"unix:///run/crio.sock", "unix:///run/containerd/containerd.sock", "unix:///run/crio.sock"},
		{"", "unix:///run/sampan/cri.sock", ""},
	} {
		o := cli.UpOptions{Settings: cli.Settings{RunDir: "/run/sampan"}, ContainerRuntime: c.flag}
		if got := engineOf(o, &settings.Kubelet{ContainerRuntimeEndpoint: c.said}); got != c.want {
			t.Errorf("%q and %q: %q, want %q", c.flag, c.said, got, c.want)
		}
		if got := engineOf(o, nil); got != c.flag {
			t.Errorf("%q without a configuration: %q", c.flag, got)
		}
	}
}

// TestNewLog: in which form, and how much, the log tells.
func TestNewLog(t *testing.T) {
	for _, c := range []struct {
		format    string
		verbosity uint32
		verbose   bool
		want      []string
	}{
		{"", 0, false, []string{"level=WARN msg=b"}},
		{"json", 2, false, []string{`"level":"WARN","msg":"b"`}},
		{"text", 4, false, []string{"level=DEBUG msg=a", "level=WARN msg=b"}},
		{"", 0, true, []string{"level=DEBUG msg=a", "level=WARN msg=b"}},
	} {
		var k settings.Kubelet
		k.Logging.Format = c.format
		for range c.verbosity {
			k.Logging.Verbosity++
		}
		var out bytes.Buffer
		log := newLog(&out, c.verbose, &k)
		log.Debug("a")
		log.Warn("b")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(c.want) {
			t.Errorf("%+v: %q", c, lines)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%+v: %q, want %q", c, lines[i], want)
			}
		}
	}
}
