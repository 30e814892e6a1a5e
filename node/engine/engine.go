// Package engine answers the Container Runtime Interface out of a container
// runtime, an image store and a pod network: one file a call. It holds what the
// CRI alone knows (names, labels, which container belongs to which sandbox) in
// small durable files, and nothing in memory that those and the parts below
// cannot give back, so that it may die and start again at any moment while pods
// run on.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/keylock"
	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/cdi"
	"github.com/sampan-dev/sampan/node/engine/spec"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

// Name is the engine's name and that of its own runtime handler, which the empty
// name means as well.
const Name = "sampan"

// Defaults of a Config.
const (
	// DefaultPidsLimit stops a fork bomb early, and is far above what ordinary
	// programs need.
	DefaultPidsLimit = 4096
	// DefaultVersion is told when nobody set one; it must be a semantic version.
	DefaultVersion = "0.0.0-dev"
)

// Network gives sandboxes their addresses; *network.Net is one.
type Network interface {
	Attach(context.Context, network.Attachment) (network.Result, error)
	Detach(context.Context, network.Attachment) error
	Check(context.Context) error
	SetPodCIDR(...netip.Prefix) error
	Reconcile(ctx context.Context, live []string) error
	Usage(id string) (network.Usage, bool)
	Cleanup(context.Context) error
}

// Config is what an Engine is made of.
type Config struct {
	Runtime *container.Runtime
	Images  *image.Store
	Network Network
	// Root is the directory of the durable records; it is made, mode 0700.
	Root string
	// Run is the directory of what a reboot voids: the sandboxes' files and
	// their /dev/shm. It must be one that a reboot empties (below /run), for its
	// being there is how a sandbox of before the reboot is told.
	Run string
	// Cgroup is the parent of pods that name none, and of nothing else:
	// "/sampan/pods" when empty.
	Cgroup string
	// PidsLimit bounds the processes of each container; 0 is DefaultPidsLimit,
	// below 0 is no limit.
	PidsLimit int64
	// Version is told to whoever asks; DefaultVersion when empty.
	Version string
	// StreamAddress is where exec, attach and port-forward streams are served;
	// "127.0.0.1:0" when empty. The URLs hold a secret and work once.
	StreamAddress string
	// OnPull, when set, is told of each pull that begins; tell is then told how far
	// its layers are, and end that it is over.
	OnPull func(r *rt.PullImageRequest) (tell func(image.Progress), end func())
	// CDIDirs are where the files of CDI devices are, a later one before an earlier;
	// cdi.DefaultDirs when nil.
	CDIDirs []string
	// Runtimes are other OCI runtimes by the handlers that they are: absolute paths
	// of programs such as runc and crun. See container.CreateConfig.Runtime.
	Runtimes map[string]string
	// NoSELinux leaves containers and volumes without labels where the kernel has SELinux.
	NoSELinux bool
	// Log receives what nobody else is told; nil is silence.
	Log *slog.Logger
}

// Engine is the built-in container engine. It implements cri.Engine. What a
// request holds is copied; what a response holds is shared with the engine and
// must not be changed.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	runtime *container.Runtime
	images  *image.Store
	network Network
	// unfit is why no container can ever run here; nil where they can.
	unfit    error
	records  *records
	hub      hub
	streams  *streams
	accounts accounts
	foreign  foreignFeatures
	hostCaps []string
	appArmor appArmor
	seLinux  *seLinux
	doubts   doubts
	// busy serialises the calls about one sandbox or one container. Order: a
	// sandbox before its containers.
	busy keylock.Locks

	stop    context.CancelFunc
	running sync.WaitGroup
	// life ends with Close.
	life context.Context //nolint:containedctx // how long a detached command is waited for
}

var (
	_ cri.Engine       = (*Engine)(nil)
	_ cri.Checkpointer = (*Engine)(nil)
)

// New finds what an earlier engine left in cfg.Root, clears away what it left
// half done, and begins to listen for containers that end.
func New(cfg Config) (*Engine, error) {
	if cfg.Runtime == nil || cfg.Images == nil || cfg.Network == nil || cfg.Root == "" || cfg.Run == "" {
		return nil, errors.New("engine: Runtime, Images, Network, Root and Run are all needed")
	}
	cfg.setDefaults()
	if err := checkRuntimes(cfg.Runtimes); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	for _, dir := range []string{cfg.Root, cfg.Run} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make engine state: %w", err)
		}
	}
	e := &Engine{cfg: cfg, log: cfg.Log, runtime: cfg.Runtime, images: cfg.Images, network: cfg.Network, appArmor: newAppArmor(cfg.Log)}
	var err error
	if e.hostCaps, err = spec.HostCapabilities(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if e.unfit = unfit(cfg.Images.Root()); e.unfit != nil {
		e.log.Warn("no container can run on this node", "error", e.unfit)
	}
	if err := e.clearCheckpoints(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if e.records, err = openRecords(cfg.Root, e.log); err != nil {
		return nil, err
	}
	e.seLinux = newSELinux(!cfg.NoSELinux && selinux.Enabled(), cfg.Log, e.records.levelTaken)
	ctx, cancel := context.WithCancel(context.Background())
	e.stop, e.life = cancel, ctx
	exits := e.runtime.Exits(ctx) // before the recovery, so that none falls between
	if err := e.recover(ctx); err != nil {
		cancel()
		return nil, err
	}
	if e.streams, err = e.openStreams(cfg.StreamAddress); err != nil {
		cancel()
		return nil, err
	}
	e.running.Go(func() { e.follow(exits) })
	return e, nil
}

func (c *Config) setDefaults() {
	if c.Cgroup == "" {
		c.Cgroup = "/sampan/pods"
	}
	if c.PidsLimit == 0 {
		c.PidsLimit = DefaultPidsLimit
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	if c.CDIDirs == nil {
		c.CDIDirs = cdi.DefaultDirs
	}
	if c.StreamAddress == "" {
		c.StreamAddress = "127.0.0.1:0"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Close ends the streams and the subscriptions. Containers run on.
func (e *Engine) Close() error {
	e.stop()
	err := e.streams.close()
	e.hub.close()
	e.running.Wait()
	return err
}

// Purge removes every container, sandbox and snapshot, the pod network and the
// engine's own state. What pods keep from one container to the next stays: there may be
// another engine for them. The engine is of no use afterwards; close it.
func (e *Engine) Purge(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(purgeAtOnce)
	for _, s := range e.records.allSandboxes() {
		g.Go(func() error { return e.removeSandbox(ctx, s.ID, false) })
	}
	errs := []error{g.Wait(), e.network.Cleanup(ctx), forgetAppArmor()}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	cgroup.RemoveEmpty(e.cfg.Cgroup)
	return errors.Join(os.RemoveAll(e.cfg.Root), os.RemoveAll(e.cfg.Run))
}

// purgeAtOnce is how many sandboxes Purge takes down at a time: most of it is
// waiting for the kernel.
const purgeAtOnce = 16

// podCIDRFile keeps what UpdateRuntimeConfig was told last, so that the network
// is ready before the agent is.
func (e *Engine) podCIDRFile() string { return filepath.Join(e.cfg.Root, "pod-cidr.json") }

func (e *Engine) restorePodCIDR() error {
	var prefixes []netip.Prefix
	err := atomicfile.ReadJSON(e.podCIDRFile(), &prefixes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore the pod CIDR: %w", err)
	}
	return e.network.SetPodCIDR(prefixes...)
}
