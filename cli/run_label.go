package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/internal/selinux"
)

// everybody is the level of files that all containers may use.
const everybody = "s0"

// share has a path of this machine be labelled for containers, as docker's z says, or for
// this one alone, as Z does: its pod then has a level that is said.
func (b *podBuilder) share(path string, alone bool) {
	if b.place.labelled == nil {
		return
	}
	if !alone {
		b.place.labelled[path] = everybody
		return
	}
	if b.c.SecurityContext.SELinuxOptions == nil {
		b.c.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{}
	}
	o := b.c.SecurityContext.SELinuxOptions
	if o.Level == "" {
		o.Level = selinux.Pair(rand.IntN)
	}
	b.place.labelled[path] = o.Level
}

// labelledHere is where share writes to: nothing where files have no labels.
func labelledHere() map[string]string {
	if !selinux.Enabled() {
		return nil
	}
	return map[string]string{}
}

// labelFiles labels what containers are given of this machine.
func (r *running) labelFiles(ctx context.Context) error {
	if len(r.labelled) == 0 {
		return nil
	}
	c, err := selinux.ReadContexts()
	if err != nil || c.File == (selinux.Label{}) {
		return err
	}
	for path, level := range r.labelled {
		label := c.File
		if label.Level != "" { // else the policy has none
			label.Level = level
		}
		if filepath.Dir(path) == r.settings.volumeDir() {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("volume: %w", err)
			}
		}
		if err := selinux.Relabel(ctx, path, label.String()); err != nil {
			return fmt.Errorf("volume: %w", err)
		}
	}
	return nil
}
