package hollow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

const (
	// MaxNodes bounds the nodes of one process.
	MaxNodes = 20_000
	// Label marks hollow nodes.
	Label = "hollow.sampan.dev/node"
	// pace is how long after one node the next begins: heartbeats then come evenly.
	pace = 2 * time.Millisecond
	// joining is how many nodes may have begun without having written a lease: what
	// thousands ask for at once takes longer than each of them waits.
	joining = 100
)

// Config of a set of hollow nodes.
type Config struct {
	// Nodes is how many; Prefix and a number from First on are their names.
	Nodes  int
	Prefix string
	First  int
	// Transport connects a node, by its name, as system:node:<name>.
	Transport func(node string) (client.Transport, error)
	// CPU, Memory and Pods are what each node has.
	CPU, Memory resource.Quantity
	Pods        int64
	// Taint, when set, keeps pods off that do not tolerate it.
	Taint *corev1.Taint
	// Ready is told of each node whose agent has begun; it may be nil.
	Started func(node string)
	// Log may be nil.
	Log *slog.Logger

	// alike and counts are all nodes' together.
	alike  *templates
	counts *tally.Tally
}

// Run runs the nodes until ctx ends. The Node objects stay: remove them by Label.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Transport == nil || cfg.Nodes <= 0 || cfg.Nodes > MaxNodes {
		return fmt.Errorf("hollow nodes: want 1 to %d, and a transport; have %d", MaxNodes, cfg.Nodes)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("", "sampan-hollow")
	if err != nil {
		return fmt.Errorf("hollow nodes: %w", err)
	}
	defer os.RemoveAll(dir)
	var all sync.WaitGroup
	defer all.Wait()
	next := time.NewTicker(pace)
	defer next.Stop()
	room := make(chan struct{}, joining)
	cfg.alike, cfg.counts = newTemplates(), tally.New(cfg.Prefix)
	for i := range cfg.Nodes {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		joined := sync.OnceFunc(func() { <-room })
		a, err := cfg.node(dir, cfg.First+i, joined)
		if err != nil {
			return err
		}
		all.Go(func() {
			defer joined()
			if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				cfg.Log.Error("a hollow node has ended", "node", cfg.name(cfg.First+i), "err", err)
			}
		})
		if cfg.Started != nil {
			cfg.Started(cfg.name(cfg.First + i))
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (cfg *Config) name(i int) string { return fmt.Sprintf("%s%d", cfg.Prefix, i) }

// node makes the i-th agent; joined is called when it beats.
func (cfg *Config) node(dir string, i int, joined func()) (*agent.Agent, error) {
	name := cfg.name(i)
	t, err := cfg.Transport(name)
	if err != nil {
		return nil, fmt.Errorf("connect hollow node %q: %w", name, err)
	}
	root := filepath.Join(dir, name)
	var taints []corev1.Taint
	if cfg.Taint != nil {
		taints = append(taints, *cfg.Taint)
	}
	a, err := agent.New(agent.Config{
		NodeName: name, NodeIPs: []string{fmt.Sprintf("198.18.%d.%d", i/254%256, 1+i%254)},
		Transport: emptied{t, cfg.alike, joined}, Engine: newEngine(i),
		Root: filepath.Join(root, "pods"), CgroupMount: filepath.Join(root, "cgroup"), LogMaxSize: -1,
		PodCIDR: fmt.Sprintf("10.%d.%d.0/24", 128+i/256%128, i%256), MaxPods: cfg.Pods,
		Labels: map[string]string{Label: "true"}, Taints: taints,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: cfg.CPU, corev1.ResourceMemory: cfg.Memory},
		Counts:   cfg.counts,
		Log:      cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("make hollow node %q: %w", name, err)
	}
	return a, nil
}
