package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/keyring"
	"github.com/sampan-dev/sampan/node/agent/pulled"
)

// TestMissingSecretsComeWithTheFailure: the pod's secrets are looked up once for a
// pull, and its failure says which of them were not there.
func TestMissingSecretsComeWithTheFailure(t *testing.T) {
	engine := agenttest.New()
	defer engine.Close()
	records, err := pulled.New(pulled.Config{Dir: t.TempDir(), Policy: kubeletv1beta1.NeverVerify, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p := newPuller(engine, records, 1, func(fn func()) { go fn() })
	asked := 0
	p.keys = func(context.Context, *corev1.Pod, string) ([]keyring.Key, []string, error) {
		asked++
		return nil, []string{"absent"}, nil
	}
	_, _, err = p.pull(t.Context(), &corev1.Pod{}, "nowhere:1")
	var u *unkeyed
	if !errors.As(err, &u) || !slices.Equal(u.missing, []string{"absent"}) || asked != 1 {
		t.Errorf("%v, asked %d times", err, asked)
	}
}

// TestLeaveIsTheRuleOfNamedImages: an image that a checkpoint names is for those who have
// the credentials that it was pulled with, under a name that it has.
func TestLeaveIsTheRuleOfNamedImages(t *testing.T) {
	engine := agenttest.New()
	defer engine.Close()
	records, err := pulled.New(pulled.Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	key := func(name string) *keyring.Key {
		return &keyring.Key{Source: keyring.Source{Secret: &keyring.Object{Namespace: "a", Name: name, UID: name}}, Entry: keyring.Entry{Username: name}}
	}
	pull := func(image, id string, by *keyring.Key) {
		if err := records.Begin(image); err != nil {
			t.Fatal(err)
		}
		records.End(image, id, by)
	}
	pull("r.test/secret:1", "sha256:1", key("mine"))
	pull("r.test/open:1", "sha256:2", nil)
	p := newPuller(engine, records, 1, func(fn func()) { go fn() })
	p.keys = func(_ context.Context, pod *corev1.Pod, _ string) ([]keyring.Key, []string, error) {
		switch pod.Name {
		case "owner":
			return []keyring.Key{*key("mine")}, nil, nil
		case "broken":
			return nil, nil, errors.New("no secrets today")
		}
		return nil, nil, nil
	}
	for _, c := range []struct {
		pod, id string
		names   []string
		ok      bool
	}{
		{"stranger", "sha256:1", []string{"r.test/secret:1"}, false},
		{"stranger", "sha256:1", []string{"r.test/open:1"}, false}, // a name alone opens nothing
		{"stranger", "sha256:1", nil, false},
		{"broken", "sha256:1", []string{"r.test/secret:1"}, false},
		{"owner", "sha256:1", []string{"r.test/other:1", "r.test/secret:1"}, true},
		{"stranger", "sha256:2", []string{"r.test/open:1"}, true},
		{"stranger", "sha256:3", []string{"r.test/preloaded:1"}, true},
	} {
		pod := &corev1.Pod{}
		pod.Namespace, pod.Name = "a", c.pod
		if err := p.leave(pod)(t.Context(), c.names, c.id); (err == nil) != c.ok {
			t.Errorf("%s, %s as %q: %v", c.pod, c.id, c.names, err)
		}
	}
}
