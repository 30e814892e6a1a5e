package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/client/lease"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// schedulerUser is the scheduler as a user of the API.
var schedulerUser = identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}

// placing is how pods are placed, and where that is counted.
type placing struct {
	explain.Placing
	metrics *scheduler.Metrics // may be nil
}

// placing is what the user told the scheduler.
func (c *cluster) placing() (explain.Placing, error) {
	how := explain.Placing{Gangs: c.FeatureGates[cli.GenericWorkload]}
	if c.SchedulerConfig == "" {
		return how, nil
	}
	text, err := os.ReadFile(c.SchedulerConfig)
	if err == nil {
		_, err = profile.Parse(text)
	}
	if err != nil {
		return how, fmt.Errorf("scheduler configuration %q: %w", c.SchedulerConfig, err)
	}
	how.Configuration = string(text)
	return how, nil
}

// newScheduler makes the scheduler that a configuration describes; without one, as
// every cluster of ours has it.
func newScheduler(how placing, t client.Transport, seed uint64, marks *timeline.Recorder, log *slog.Logger) (*scheduler.Scheduler, error) {
	cfg := scheduler.Config{Profiles: profile.Default()}
	if how.Configuration != "" {
		var err error
		if cfg, err = profile.Parse([]byte(how.Configuration)); err != nil {
			return nil, fmt.Errorf("scheduler configuration: %w", err)
		}
	}
	cfg.Gangs, cfg.Metrics = how.Gangs, how.metrics
	cfg.Transport, cfg.Seed, cfg.Timeline, cfg.Log = t, seed, marks, log
	return scheduler.New(cfg)
}

// lead runs what only one server of a cluster may run at a time. With an external
// etcd there may be several: they elect, on the lease that upstream's components
// use, with upstream's times. The embedded store belongs to one process, so there
// is nobody to elect against, and no lease to be renewed in an idle cluster.
func (c *cluster) lead(ctx context.Context, p *controlPlane, name, candidate string, run func(context.Context) error) error {
	if len(c.EtcdServers) == 0 {
		return c.lone.run(ctx, name, run)
	}
	return lease.Run(ctx, lease.Config{
		Transport: p.admin(), Namespace: metav1.NamespaceSystem, Name: name, Identity: candidate, Log: c.log,
	}, run)
}

// candidate is who this server is in elections: its host's name and a random part
// that stays with the data directory. A server that was killed and comes back is
// the same candidate, and need not wait for its own lease to expire; the lock on
// the directory keeps a second one from being it.
func (c *cluster) candidate() (string, error) {
	file := filepath.Join(c.DataDir, "candidate")
	known, err := os.ReadFile(file)
	if id := strings.TrimSpace(string(known)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read this server's identity: %w", err)
	}
	id := c.NodeName + "_" + rand.Text()
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write this server's identity: %w", err)
	}
	return id, nil
}
