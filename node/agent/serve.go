package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/internal/zpages"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/server"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/static"
)

// systemLogs is where the machine's own programs log.
const systemLogs = "/var/log"

// Handler is the kubelet API, for whoever serves it in the process itself.
func (a *Agent) Handler() http.Handler { return server.New(a.api()) }

// api is what the kubelet API is made of.
func (a *Agent) api() server.Config {
	k := a.cfg.Kubelet
	c := server.Config{
		Node: view{a}, NodeName: a.cfg.NodeName, Engine: a.engine, Authn: a.cfg.Authn, Authz: a.cfg.Authz, Log: a.cfg.Log,
		Settings: a.shown(), Probes: a.probed, Counts: []prometheus.Collector{a.tally, figures{a}}, Version: a.cfg.Version, SystemLogs: a.systemLogs(), Closed: !*k.EnableDebuggingHandlers,
		PodMemory: a.podMemory(),
		Profiled:  *k.EnableProfilingHandler,
		Pages: server.Pages{
			Of:     zpages.Component{Name: "kubelet", Version: a.cfg.Version, Began: time.Now(), Flags: a.cfg.Flags},
			Status: a.cfg.gates.On("ComponentStatusz"), Flags: a.cfg.gates.On("ComponentFlagz"),
		},
		Checkpoints: a.checkpoints(),
		Questions:   ptr.Deref(k.EnableSystemLogQuery, false), Gates: a.cfg.gates.All(), Translated: a.cfg.gates.On("ExtendWebSocketsToKubelet"),
		Disks: server.Disks{Node: a.cfg.Root, Logs: a.node.LogDirectory, Volumes: a.volumePaths, Claims: a.claimPaths},
	}
	if k.VolumeStatsAggPeriod.Duration < 0 { // upstream's way to say that volumes are not measured
		c.Disks.Volumes = func(*corev1.Pod) map[string]string { return nil }
		c.Disks.Claims = c.Disks.Volumes
	}
	return c
}

// checkpoints is where checkpoints of containers go, "" where there are none.
func (a *Agent) checkpoints() string {
	if !a.cfg.gates.On("ContainerCheckpoint") {
		return ""
	}
	return filepath.Join(a.cfg.KubeletRoot, "checkpoints")
}

// podMemory is the memory that all pods together may use: what isn't reserved, as their
// cgroup is limited by upstream. What eviction keeps free is theirs until it evicts.
func (a *Agent) podMemory() uint64 {
	capacity := a.registry.Capacity()
	return uint64(max(capacity.Memory().Value()-a.cfg.Reserved.Memory().Value(), 0)) //nolint:gosec // not negative
}

// shown is the configuration as /configz tells it: what the node goes by, wherever that
// came from.
func (a *Agent) shown() settings.Kubelet {
	k := settings.Effective(*a.cfg.Kubelet)
	k.SyncFrequency.Duration = a.cfg.Resync
	k.PodLogsDir, k.CgroupRoot, k.PodCIDR = a.cfg.LogRoot, a.cfg.CgroupRoot, a.cfg.PodCIDR
	k.ContainerRuntimeEndpoint, k.RegisterWithTaints = a.cfg.Endpoint, a.cfg.Taints
	return k
}

// systemLogs is the directory of the node's own logs, where it may be shown.
func (a *Agent) systemLogs() string {
	if shown := a.cfg.Kubelet.EnableSystemLogHandler; shown != nil && !*shown {
		return ""
	}
	return systemLogs
}

// volumePaths are the directories of the pod's volumes that are its own.
func (a *Agent) volumePaths(pod *corev1.Pod) map[string]string {
	paths := map[string]string{}
	for i := range pod.Spec.Volumes {
		if dir := a.volumes.Path(pod, &pod.Spec.Volumes[i]); dir != "" {
			paths[pod.Spec.Volumes[i].Name] = dir
		}
	}
	return paths
}

// claimPaths are where a pod has the volumes of its claims that are on this node's
// own disks.
func (a *Agent) claimPaths(pod *corev1.Pod) map[string]string { return a.volumes.Lent(string(pod.UID)) }

// serve listens for the kubelet API until ctx ends, if there is a TLS
// configuration. The channel tells when it could not, or stopped.
func (a *Agent) serve(ctx context.Context) <-chan error {
	failed := make(chan error, 1)
	a.serveHealth(ctx)
	if a.cfg.TLS == nil {
		return failed
	}
	address := net.JoinHostPort(listenHost(a.cfg.Kubelet.Address), strconv.Itoa(int(a.cfg.Port)))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		failed <- fmt.Errorf("serve the kubelet API: %w", err)
		return failed
	}
	srv := server.HTTP(a.sharing(a.Handler()), a.cfg.Log)
	// Streams outlive no agent: their contexts end with it.
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	a.spawn(func() {
		defer stop()
		err := srv.Serve(tls.NewListener(listener, a.cfg.callers.ask(a.shows(a.cfg.TLS))))
		if ctx.Err() == nil {
			failed <- fmt.Errorf("serve the kubelet API: %w", err)
		}
	})
	return failed
}

// shows counts the certificates that take one another's place, when the next is shown
// for the first time.
func (a *Agent) shows(c *tls.Config) *tls.Config {
	if c.GetCertificate == nil {
		return c
	}
	var last atomic.Pointer[tls.Certificate]
	c = c.Clone()
	get := c.GetCertificate
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		now, err := get(hello)
		if err != nil || now == nil {
			return now, err
		}
		if was := last.Swap(now); was != nil && was != now && was.Leaf != nil {
			a.tally.CertificateRenewed(time.Since(was.Leaf.NotBefore))
		}
		return now, nil
	}
	return c
}

// sharing puts what other nodes may fetch beside the kubelet API.
func (a *Agent) sharing(api http.Handler) http.Handler {
	if a.cfg.Sharing == nil {
		return api
	}
	mux := http.NewServeMux()
	mux.Handle("/v2/", a.cfg.Sharing)
	mux.Handle("/", api)
	return mux
}

// serveHealth answers to everybody on the machine whether the agent lives, and to everybody
// what may be read, if the configuration asks for that.
func (a *Agent) serveHealth(ctx context.Context) {
	k := a.cfg.Kubelet
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	a.serveOpen(ctx, "health", net.JoinHostPort(k.HealthzBindAddress, strconv.Itoa(int(*k.HealthzPort))), mux)
	if k.ReadOnlyPort != 0 && *k.EnableServer {
		a.serveOpen(ctx, "what may be read", net.JoinHostPort(listenHost(k.Address), strconv.Itoa(int(k.ReadOnlyPort))), server.ReadOnly(a.api()))
	}
}

// serveOpen serves what needs neither a certificate nor a name; port 0 serves nothing.
func (a *Agent) serveOpen(ctx context.Context, what, address string, h http.Handler) {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "0" {
		return
	}
	srv := server.HTTP(h, a.cfg.Log)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		a.cfg.Log.Error("can't serve "+what, "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	a.spawn(func() {
		defer stop()
		if err := srv.Serve(listener); err != nil && ctx.Err() == nil {
			a.cfg.Log.Error(what+" is served no more", "err", err)
		}
	})
}

// listenHost is "" for all addresses, of both families.
func listenHost(address string) string {
	if address == "0.0.0.0" || address == "::" {
		return ""
	}
	return address
}

// view is the agent as the kubelet API sees it.
type view struct{ a *Agent }

// Pods implements server.Node.
func (v view) Pods() []*corev1.Pod {
	var list []*corev1.Pod
	for _, p := range v.a.pods.List() {
		if !static.IsMirror(p) {
			list = append(list, p)
		}
	}
	v.a.mu.Lock()
	defer v.a.mu.Unlock()
	for _, m := range v.a.machines {
		if m.static {
			list = append(list, m.withStatus())
		}
	}
	return list
}

// pod is the pod of a name, a static one rather than its mirror.
func (v view) pod(namespace, name string) (*corev1.Pod, bool) {
	if m := v.a.named(namespace, name); m != nil && m.static {
		return m.withStatus(), true
	}
	return v.a.pods.Get(namespace, name)
}

// Sandbox implements server.Node.
func (v view) Sandbox(ctx context.Context, namespace, name string) (string, error) {
	pod, ok := v.pod(namespace, name)
	if !ok {
		return "", fmt.Errorf("pod does not exist")
	}
	now, err := actual.NewReader(v.a.cfg.Engine).Read(ctx, string(pod.UID))
	if err != nil {
		return "", err
	}
	box := now.Ready()
	if box == nil {
		return "", fmt.Errorf("failed to find sandbox for pod %q", spec.FullName(pod))
	}
	return box.ID, nil
}

// Container implements server.Node.
func (v view) Container(ctx context.Context, namespace, name, container string, previous bool) (server.Container, error) {
	pod, ok := v.pod(namespace, name)
	if !ok {
		return server.Container{}, fmt.Errorf("pod %q does not exist", namespace+"/"+name)
	}
	if spec.Container(pod, container) == nil {
		return server.Container{}, fmt.Errorf("container %q not found in pod %q", container, name)
	}
	now, err := actual.NewReader(v.a.cfg.Engine).Read(ctx, string(pod.UID))
	if err != nil {
		return server.Container{}, err
	}
	var found []*actual.Container
	for i := range now.Containers {
		if c := &now.Containers[i]; c.Name == container && (c.State != actual.Created || !previous) {
			found = append(found, c)
		}
	}
	index := 0
	if previous {
		index = 1
	}
	if index < len(found) {
		return v.found(pod, found[index]), nil
	}
	if previous {
		return server.Container{}, fmt.Errorf("previous terminated container %q in pod %q not found", container, name)
	}
	return v.remembered(pod, container)
}

func (v view) found(pod *corev1.Pod, c *actual.Container) server.Container {
	path := c.LogPath
	if path == "" {
		path = filepath.Join(v.a.node.LogDirectory(pod), spec.LogPath(c.Name, c.Attempt))
	}
	declared := spec.Container(pod, c.Name)
	return server.Container{ID: c.ID, LogPath: path, Running: c.State == actual.Running, Attempt: c.Attempt, StdinOnce: declared != nil && declared.StdinOnce}
}

// remembered finds the log of a container that the engine has given up already.
func (v view) remembered(pod *corev1.Pod, container string) (server.Container, error) {
	lists := [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses}
	for _, list := range lists {
		for _, st := range list {
			if st.Name != container {
				continue
			}
			if w := st.State.Waiting; w != nil {
				return server.Container{}, fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, waitingText(w))
			}
			if st.State.Terminated != nil {
				return server.Container{LogPath: filepath.Join(v.a.node.LogDirectory(pod), spec.LogPath(container, st.RestartCount))}, nil
			}
		}
	}
	return server.Container{}, fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
}

func waitingText(w *corev1.ContainerStateWaiting) string {
	switch w.Reason {
	case errPull, errPullWait:
		return "trying and failing to pull image"
	case "":
		return "no reason given"
	}
	return w.Reason
}
