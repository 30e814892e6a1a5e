package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/sampan-dev/sampan/node/container"
)

// recoverTime bounds the clearing away at start.
const recoverTime = time.Minute

// idForm is what newID makes. Only things with such names are cleared away: the
// runtime and the image store may serve others too.
var idForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// recover compares the records with what lives. A sandbox that was being made,
// or whose namespaces went with a reboot, becomes not ready; sandboxes,
// containers and snapshots without a record are removed. What fails is told and left for the
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
	e.recoverContainers(ctx)
	if err := e.recoverSandboxes(ctx); err != nil {
		return err
	}
	return e.recoverSnapshots()
}

// recoverSandboxes removes the namespaces and files of sandboxes without a
// record. Containers that were in them are gone before.
func (e *Engine) recoverSandboxes(ctx context.Context) error {
	for _, id := range e.runtime.Sandboxes() {
		if !idForm.MatchString(id) || e.records.sandbox(id) != nil {
			continue
		}
		e.log.Info("removing a sandbox that nobody knows", "sandbox", id)
		if err := e.runtime.RemoveSandbox(ctx, id); err != nil {
			e.log.Warn("unknown sandbox is not removed", "sandbox", id, "error", err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(e.cfg.Run, filesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("recover: %w", err)
	}
	for _, f := range entries {
		if !idForm.MatchString(f.Name()) || e.records.sandbox(f.Name()) != nil {
			continue
		}
		if err := e.files(f.Name()).remove(); err != nil {
			e.log.Warn("files of an unknown sandbox are not removed", "sandbox", f.Name(), "error", err)
		}
	}
	return nil
}

// recoverContainers removes what only one side knows: a container whose making
// was cut short, before or after the other side heard of it.
func (e *Engine) recoverContainers(ctx context.Context) {
	for _, c := range e.records.allContainers() {
		if _, err := e.runtime.Status(c.ID); !errors.Is(err, container.ErrNotFound) {
			continue
		}
		e.log.Info("forgetting a container that was never made", "container", c.ID)
		if err := e.unmakeContainer(ctx, c); err != nil {
			e.log.Warn("container is not forgotten", "container", c.ID, "error", err)
		}
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
