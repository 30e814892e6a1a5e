package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/agent/class"
	"github.com/sampan-dev/sampan/node/agent/garbage"
	"github.com/sampan-dev/sampan/node/agent/probe"
	"github.com/sampan-dev/sampan/node/agent/register"
	"github.com/sampan-dev/sampan/node/agent/roster"
	"github.com/sampan-dev/sampan/node/agent/rotate"
	"github.com/sampan-dev/sampan/node/agent/server"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/agent/usage"
	"github.com/sampan-dev/sampan/node/agent/users"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/volume"
)

// Agent runs one node's pods. Make it with New; call Run once.
type Agent struct {
	cfg      Config
	node     spec.Node
	runtime  atomic.Pointer[string]
	events   *client.Recorder
	pods     *informer.Informer[*corev1.Pod]
	services *informer.Informer[*corev1.Service]
	nodes    *informer.Informer[*corev1.Node]
	refs     *references
	bundles  *shared[*certificatesv1.ClusterTrustBundle]
	certs    *certificates
	volumes  *volume.Volumes
	images   *puller
	doer     *probe.Doer
	registry *register.Registrar
	logs     *rotate.Rotator
	meter    usage.Meter
	trash    *garbage.Images
	strain   *strain
	places   *places
	users    *users.Ranges
	probed   *server.Probes
	falling  downfall
	tally    *tally.Tally
	made     made
	// roster shows the pods to others on the node; nil where nobody can ask.
	roster *roster.Roster
	// engine is cfg.Engine as it was given: with all that it can do.
	engine cri.Engine

	inbox   inbox
	statics *statics
	// classes, asked and shareless belong to dispatch; asked is what the pods that were
	// placed here when it last looked have requested.
	asked   map[types.UID]asked
	classes class.Shares
	// waited are the owners of pods that came again before their end; dispatch's too.
	waited    map[types.UID]*machine
	shareless bool
	// reserveless as well: memory could not be reserved.
	reserveless bool

	// life is that of Run, for parts that begin when they are first needed.
	life context.Context

	mu       sync.Mutex
	machines map[types.UID]*machine
	wg       sync.WaitGroup
}

// New checks the configuration and builds an Agent; nothing happens before Run.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	counts, engine := cfg.Counts, cfg.Engine
	cfg.Engine = cri.Observe(engine, counts.Operation)
	unhurried := client.Observe(cfg.Transport, func(r client.Request) { counts.Requested(cfg.Server, r.Method, r.Code, r.Took) })
	cfg.Transport = paced(unhurried, rate(cfg.Kubelet.KubeAPIQPS, cfg.Kubelet.KubeAPIBurst))
	if cfg.Capacity == nil {
		cfg.settle()
	}
	a := &Agent{cfg: cfg, tally: counts, engine: engine, machines: map[types.UID]*machine{}, waited: map[types.UID]*machine{}, asked: map[types.UID]asked{}, inbox: newInbox(), statics: newStatics(), made: made{look: make(chan struct{}, 1), told: map[string]string{}}, probed: server.NewProbes(), classes: class.Shares{Mount: cfg.CgroupMount, Root: cfg.CgroupRoot}}
	a.setRuntime("sampan")
	if cfg.plugged() {
		a.roster = roster.New(counts)
	}
	a.classes.Changed = func(took time.Duration) { counts.GroupsChanged("update", took) }
	counts.Cgroup(a.classes.Version())
	if a.strain, err = newStrain(cfg); err != nil {
		return nil, err
	}
	a.registry, err = register.New(register.Config{
		NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs, Transport: unhurried, Engine: cfg.Engine, Disk: cfg.Root,
		MaxPods: cfg.MaxPods, Labels: cfg.Labels, Annotations: cfg.annotations(), Taints: cfg.Taints, Reserved: cfg.Reserved, Capacity: cfg.Capacity,
		Port: cfg.Port, Version: cfg.Version, PodCIDR: cfg.PodCIDR, Log: cfg.Log, ProviderID: cfg.Kubelet.ProviderID,
		LeaseSeconds: cfg.Kubelet.NodeLeaseDurationSeconds, LookEvery: cfg.Kubelet.NodeStatusUpdateFrequency.Duration,
		Fault: a.fault, Withhold: cfg.kept, Extra: a.extra, Pressures: a.pressures, Counts: counts, ReportEvery: cfg.Kubelet.NodeStatusReportFrequency.Duration, MaxImages: int(*cfg.Kubelet.NodeStatusMaxImages),
		Features: cfg.declared(), Absent: !*cfg.Kubelet.RegisterNode,
	})
	if err != nil {
		return nil, err
	}
	swap, err := cfg.swapLimit(cfg.Kubelet)
	if err != nil {
		return nil, err
	}
	capacity := a.registry.Capacity()
	a.node = spec.Node{
		Name: cfg.NodeName, IPs: cfg.NodeIPs, ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain,
		Resolver: hostResolver(*cfg.Kubelet.ResolverConfig), Allocatable: a.registry.Allocatable(), Memory: capacity.Memory().Value(),
		Sysctls: cfg.Kubelet.DefaultPodSysctls, CgroupRoot: cfg.CgroupRoot, PidsLimit: cfg.PidsLimit, LogRoot: cfg.LogRoot, SeccompRoot: cfg.SeccompRoot,
		SeccompUnconfined: !*cfg.Kubelet.SeccompDefault, NoCFSQuota: !*cfg.Kubelet.CPUCFSQuota,
		Swap: swap, OOMGroup: cfg.killsTogether(), MemoryQoS: cfg.memoryQoS(), PageSizes: spec.PageSizes(capacity),
		CFSPeriod: cfg.Kubelet.CPUCFSQuotaPeriod.Microseconds(),
	}
	a.events = client.NewRecorder(paced(unhurried, rate(cfg.Kubelet.EventRecordQPS, cfg.Kubelet.EventBurst)), "kubelet", cfg.NodeName)
	a.pods = informer.New(cfg.Transport, client.Pods, informer.Options{FieldSelector: "spec.nodeName=" + cfg.NodeName, Log: cfg.Log})
	a.services = informer.New(cfg.Transport, client.Services, informer.Options{Log: cfg.Log})
	a.nodes = informer.New(cfg.Transport, client.Nodes, informer.Options{FieldSelector: "metadata.name=" + cfg.NodeName, Log: cfg.Log})
	a.pods.Subscribe(a.heedPod)
	a.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.New != nil {
			a.registry.Seen(e.New)
			a.made.heed()
		}
	})
	a.refs = newReferences(cfg.Transport, cfg.Log, a.wakeNamed)
	a.bundles, a.certs = a.newBundles(), newCertificates(a)
	a.newVolumes()
	if err := a.newPulls(); err != nil {
		return nil, err
	}
	a.newDoer()
	if err := a.newPlaces(); err != nil {
		return nil, err
	}
	if err := a.newUsers(); err != nil {
		return nil, err
	}
	a.meter = usage.Meter{Engine: cfg.Engine, Logs: a.node.LogDirectory, Volume: a.emptyDir}
	a.trash = a.newTrash()
	a.logs = rotate.New(rotate.Config{Engine: cfg.Engine, MaxSize: cfg.LogMaxSize, MaxFiles: cfg.LogMaxFiles, Log: cfg.Log})
	return a, nil
}

// newVolumes makes what prepares the volumes of pods.
func (a *Agent) newVolumes() {
	cfg := a.cfg
	a.volumes = volume.New(volume.Config{
		Root: cfg.Root, Made: cfg.Made, Source: a.refs, Tokens: a.mintToken, Bundles: a.bundleList, Certificates: a.certs.get, Log: cfg.Log,
		Claims: claims{a}, Warn: func(pod *corev1.Pod, reason, message string) {
			a.events.Event(pod, corev1.EventTypeWarning, reason, message)
		}, Seen: a.tally.Stored, Tell: func(pod *corev1.Pod, reason, message string) {
			a.events.Event(pod, corev1.EventTypeNormal, reason, message)
		},
	})
}

// newDoer makes what runs probes and hooks.
func (a *Agent) newDoer() {
	a.doer = &probe.Doer{Engine: a.cfg.Engine, PodIPs: a.podIPs, Cut: a.tally.SleepCut, FellBack: func(pod *corev1.Pod, host string) {
		a.tally.HookFellBack()
		a.events.Event(pod, corev1.EventTypeWarning, "LifecycleHTTPFallback",
			fmt.Sprintf("request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", host))
	}}
}

// hostResolver reads the host's resolv.conf, past systemd-resolved's stub, which
// pods can't reach. With no path at all pods get an empty one.
func hostResolver(path string) spec.Resolver {
	if path == "" {
		return spec.Resolver{}
	}
	for _, path := range []string{path, "/run/systemd/resolve/resolv.conf"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		r, err := spec.ParseResolver(f)
		f.Close()
		if err == nil && !(len(r.Servers) == 1 && strings.HasPrefix(r.Servers[0], "127.0.0.5")) {
			return r
		}
	}
	return spec.Resolver{}
}

// Run runs the node until ctx ends. Containers stay: a later Run adopts them.
// It fails only when it can't begin; everything after is retried.
func (a *Agent) Run(ctx context.Context) error {
	a.delegate()
	for _, dir := range []string{a.cfg.Root, a.cfg.LogRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("agent: create state directory: %w", err)
		}
	}
	if err := pointTo(logRoot(a.cfg.Root), a.cfg.LogRoot); err != nil {
		return fmt.Errorf("agent: say where the logs are: %w", err)
	}
	if err := os.Chmod(a.cfg.Root, 0o711); err != nil {
		return fmt.Errorf("agent: close state directory: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	// Operations in flight are cancelled, waited for, and resumed by the next Run.
	defer a.wg.Wait()
	defer cancel()
	a.life = ctx
	if v, err := a.cfg.Engine.Version(ctx, &rt.VersionRequest{}); err == nil && v.GetRuntimeName() != "" {
		a.setRuntime(v.GetRuntimeName())
	}
	a.cfg.Log.Info("Effective KubeletConfiguration", "config", settings.Text(a.shown())) // upstream's words
	if err := a.enforceOthers(); err != nil {
		return err
	}
	a.boundSwap()
	a.resumePulls(ctx)
	serveErr := a.serve(ctx)
	a.spawn(func() { a.run(ctx, "log rotation", a.logs.Run) })
	if a.strain.observe != nil {
		a.findImages(ctx)
		a.spawn(func() { a.run(ctx, "eviction", a.relieve) })
		a.spawn(func() { a.run(ctx, "image garbage collection", a.trash.Run) })
	}
	if a.cfg.plugged() {
		a.runPlugins(ctx)
	}
	if a.cfg.Ending != nil {
		a.spawn(func() { a.run(ctx, "shutdown", a.runShutdown) })
	}
	if a.places.cpus != nil {
		a.places.shift()
		a.spawn(func() { a.run(ctx, "shared CPUs", a.runShared) })
	}
	if a.cfg.Made != "" {
		a.spawn(func() { a.run(ctx, "volumes of claims", a.runMade) })
	}
	a.spawn(func() { a.run(ctx, "services", a.services.Run) })
	a.spawn(func() { a.run(ctx, "registration", a.registry.Run) })
	a.spawn(func() { a.run(ctx, "node", a.nodes.Run) })
	a.spawn(func() { a.run(ctx, "pods", a.pods.Run) })
	a.spawn(func() { a.refs.run(ctx) })
	a.spawn(func() { a.run(ctx, "static pods", a.runStatic) })
	a.spawn(func() { a.follow(ctx) })
	return a.dispatch(ctx, serveErr)
}

// synced closes when the API has said all that decisions about its pods need.
// Static pods don't wait for it.
func (a *Agent) synced(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	a.spawn(func() {
		for _, part := range []<-chan struct{}{a.statics.read, a.registry.Registered(), a.services.Synced(), a.nodes.Synced(), a.pods.Synced()} {
			select {
			case <-part:
			case <-ctx.Done():
				return
			}
		}
		close(done)
	})
	return done
}

func (a *Agent) spawn(fn func()) { a.wg.Go(fn) }

// run keeps one part going and says when it ends before its time.
func (a *Agent) run(ctx context.Context, part string, fn func(context.Context) error) {
	if err := fn(ctx); err != nil && ctx.Err() == nil {
		a.cfg.Log.Error("a part of the agent ended", "part", part, "err", err)
	}
}

func (a *Agent) setRuntime(name string) { a.runtime.Store(&name) }

// podIPs are a pod's addresses as last seen.
func (a *Agent) podIPs(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		return a.cfg.NodeIPs
	}
	if m := a.machine(pod.UID); m != nil {
		return m.ips()
	}
	return nil
}

func (a *Agent) machine(uid types.UID) *machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.machines[uid]
}

// mark puts one step of the run station on a pod's timeline.
func (a *Agent) mark(uid types.UID, name, detail string, start time.Time) {
	a.cfg.Timeline.Mark(string(uid), timeline.Mark{Step: timeline.Run, Name: name, Detail: detail, Start: start, End: time.Now()})
}
