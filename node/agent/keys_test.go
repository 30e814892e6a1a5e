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
