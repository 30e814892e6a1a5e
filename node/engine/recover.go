package engine

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"
)

// recoverTime bounds the clearing away at start.
const recoverTime = time.Minute

// idForm is what newID makes. Only things with such names are cleared away: the
// runtime and the image store may serve others too.
var idForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// recover compares the records with what lives. A sandbox that was being made,
// or whose namespaces went with a reboot, becomes not ready; containers and
// snapshots without a record are removed. What fails is told and left for the
// next start: one stuck pod must not keep the node from coming up.
func (e *Engine) recover(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	if err := e.restorePodCIDR(); err != nil {
		e.log.Warn("pod network is not restored", "error", err)
	}
	var live []string
	for _, s := range e.records.allSandboxes() {
		if s.Ready && !e.sandboxLives(s) {
			e.log.Info("sandbox is gone", "sandbox", s.ID, "pod", podName(s.Config))
			gone := *s
			gone.Ready = false
			s = &gone
			if err := e.records.putSandbox(s); err != nil {
				return fmt.Errorf("recover: %w", err)
			}
		}
		if s.Ready {
			live = append(live, s.ID)
		}
	}
	if err := e.network.Reconcile(ctx, live); err != nil {
		e.log.Warn("pod network is not reconciled", "error", err)
	}
	for _, st := range e.runtime.List() {
		if !idForm.MatchString(st.ID) || e.records.container(st.ID) != nil {
			continue
		}
		e.log.Info("removing a container that nobody knows", "container", st.ID)
		if err := e.runtime.Remove(ctx, st.ID); err != nil {
			e.log.Warn("unknown container is not removed", "container", st.ID, "error", err)
		}
	}
	return e.recoverSnapshots()
}

func (e *Engine) recoverSnapshots() error {
	keys, err := e.images.Snapshots()
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, key := range keys {
		id, _, _ := cutSnapshot(key)
		if !idForm.MatchString(id) || e.records.container(id) != nil {
			continue
		}
		if err := e.images.Release(key); err != nil {
			e.log.Warn("unknown snapshot is not released", "snapshot", key, "error", err)
		}
	}
	return nil
}

// sandboxLives tells whether the kernel still has what a sandbox is made of.
func (e *Engine) sandboxLives(s *sandbox) bool {
	if _, err := os.Stat(e.files(s.ID).dir); err != nil {
		return false
	}
	_, err := e.runtime.Sandbox(s.ID)
	return err == nil
}
