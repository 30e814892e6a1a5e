package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

// seLinux are the labels of this node's pods. The records remember them.
type seLinux struct {
	policy func() spec.Policy
	// choosing is held from when a level is chosen until the records have it.
	choosing sync.Mutex
}

func newSELinux(on bool, log *slog.Logger, taken func(level string) bool) *seLinux {
	return &seLinux{policy: sync.OnceValue(func() spec.Policy {
		p := spec.Policy{Check: selinux.Check, Level: func() string { return freshLevel(rand.IntN, taken) }}
		if !on {
			return p
		}
		var err error
		if p.Contexts, err = selinux.ReadContexts(); err != nil || p.Process == (selinux.Label{}) {
			log.Warn("SELinux is enabled, and its policy has no word for containers: they run without labels", "err", err)
		}
		return p
	})}
}

// levelTries bounds the search for a level that nobody has: there are half a million.
const levelTries = 10000

// freshLevel is a level that no pod has, or after many tries any: two pods that share one
// are less apart from each other, and no less from everything else.
func freshLevel(n func(int) int, taken func(level string) bool) string {
	level := selinux.Pair(n)
	for range levelTries {
		if !taken(level) {
			break
		}
		level = selinux.Pair(n)
	}
	return level
}

// reserve labels a sandbox that is about to be made, and reserves its name.
func (e *Engine) reserve(s *sandbox) error {
	e.seLinux.choosing.Lock()
	defer e.seLinux.choosing.Unlock()
	var err error
	if s.Labels, err = spec.PodLabels(s.Config, e.seLinux.policy()); err != nil {
		return coded(fmt.Errorf("sandbox %q: %w", podName(s.Config), err))
	}
	return e.records.reserveSandbox(s)
}

// levelTaken says whether a pod, or a container in one, has a level.
func (r *records) levelTaken(level string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.sandboxes.in("") {
		if spec.LevelOf(s.Labels.Process) == level {
			return true
		}
	}
	for _, c := range r.ctrs.in("") {
		if c.Config.GetLinux().GetSecurityContext().GetSelinuxOptions().GetLevel() == level {
			return true
		}
	}
	return false
}

// relabel gives a container the files that it is shown: the sandbox's, and the volumes
// that its agent wants labelled. It comes with each container, whose label need not be
// that of the one before.
func (e *Engine) relabel(ctx context.Context, s *sandbox, mounts []*rt.Mount, shm, label string) error {
	if label == "" {
		return nil
	}
	if err := os.MkdirAll(e.files(s.ID).nothing(), 0o755); err != nil {
		return fmt.Errorf("make sandbox files: %w", err)
	}
	files := e.files(s.ID).visible("")
	paths := []string{files.Hostname, files.Hosts, files.ResolvConf}
	if !hostIPC(s.Config) {
		paths = append(paths, shm)
	}
	for _, m := range mounts {
		if m.GetSelinuxRelabel() && m.GetHostPath() != "" {
			paths = append(paths, m.GetHostPath())
		}
	}
	for _, p := range paths {
		if err := selinux.Relabel(ctx, p, label); err != nil {
			return err
		}
	}
	return nil
}
