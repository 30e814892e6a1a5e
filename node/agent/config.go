// Package agent is the node's agent: it runs the pods that are bound to its
// node, reports how they are, registers the node and keeps its lease, and
// serves the kubelet's HTTPS API.
//
// One goroutine owns a pod (machine.go). It is woken by changes of the pod, by
// the engine's events, by probes and by the end of its own operations; it looks
// at what is (actual), decides (plan) and begins what may begin now. What it
// reports is computed (status) and written when it differs. The decisions are
// pure packages of their own; here is only the doing.
//
// The agent speaks to the engine through cri.Engine and to the API server
// through client.Transport, and to nothing else.
package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/agent/pressure"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/volume"
)

// Defaults of Config.
const (
	defaultData      = "/var/lib/sampan"
	defaultKubelet   = "/var/lib/kubelet"
	defaultDomain    = "cluster.local"
	defaultResync    = 90 * time.Second
	defaultCgroup    = "sampan"
	defaultVersion   = "v1.37.1"
	defaultHostsFile = "/etc/hosts"
)

// Config is all that New needs. NodeName, NodeIPs, Transport and Engine are
// required; the zero value of every other field has a default.
type Config struct {
	// NodeName is the Node object's name; it must be a DNS subdomain.
	NodeName string
	// NodeIPs are the node's addresses, the primary one first.
	NodeIPs []string
	// Transport carries the requests of system:node:<NodeName>.
	Transport client.Transport
	// Server is HOST:PORT of the API server, for the counts of requests alone; it may
	// be "".
	Server string
	// Engine runs sandboxes and containers.
	Engine cri.Engine
	// Endpoint is where others find Engine, for /configz; it may be "".
	Endpoint string
	// Root holds pods' directories, by default /var/lib/sampan/pods.
	Root string
	// Made is where directories are made for claims of the built-in storage class,
	// by default claims beside Root; a node whose Capacity is given makes none.
	Made string
	// LogRoot holds container logs, by default logs/pods beside Root.
	LogRoot string
	// SeccompRoot is where Localhost profiles are, by default seccomp beside Root.
	SeccompRoot string
	// KubeletRoot is where plugins look for a kubelet's sockets: /var/lib/kubelet,
	// or, when Root isn't where it is by default, kubelet beside it.
	KubeletRoot string
	// CredentialProviders is the file of a CredentialProviderConfig, or a directory of
	// such files, and CredentialPrograms where the programs are that it names: they
	// are asked for credentials of registries. Both may be "".
	CredentialProviders, CredentialPrograms string
	// Home is whose .docker/config.json has credentials of registries for all pods,
	// besides config.json in KubeletRoot: the home of whoever runs the agent, or, of a
	// node whose Capacity is given, nobody's.
	Home string
	// Sys is where sysfs is mounted, /sys.
	Sys string
	// CgroupRoot is the cgroup that holds "kubepods", by default "sampan".
	CgroupRoot string
	// CgroupMount is where cgroups are mounted, by default /sys/fs/cgroup.
	CgroupMount string
	// ClusterDNS are the name servers of pods with dnsPolicy ClusterFirst; if
	// there are none such pods get the host's.
	ClusterDNS []string
	// ClusterDomain defaults to cluster.local.
	ClusterDomain string
	// PodCIDR is announced to the engine when the Node has none; usually the
	// Node's own, which a controller gives it, is used.
	PodCIDR string
	// MaxPods is the node's capacity for pods: 110.
	MaxPods int64
	// PidsLimit bounds the processes of one pod: 4096.
	PidsLimit int64
	// Labels and Taints are given to the Node when it is registered.
	Labels map[string]string
	Taints []corev1.Taint
	// Reserved is withheld from pods: allocatable is capacity less this.
	Reserved corev1.ResourceList
	// Capacity replaces what the machine has, for tests and simulation.
	Capacity corev1.ResourceList
	// Port is where the kubelet API is found, as the Node announces it: 10250.
	Port int32
	// TLS serves the kubelet API; when nil nothing listens, and only Handler
	// offers it.
	TLS *tls.Config
	// ClientCAs are the authorities of those who may show a certificate.
	ClientCAs *x509.CertPool
	// Sharing answers below /v2/ of the kubelet API, and judges its callers itself:
	// it gives other nodes the content of images. nil shares nothing.
	Sharing http.Handler
	// Authn says who makes a request to the kubelet API; by default certificates
	// are checked against ClientCAs, and the API server is asked about tokens.
	Authn func(*http.Request) (identity.Identity, bool)
	// Authz says whether an identity may use a part of it: verb is get, create or
	// so, subresource is proxy, log, exec, stats, metrics, pods, healthz or
	// configz. By default the API server is asked.
	Authz func(ctx context.Context, who identity.Identity, verb, subresource string) bool
	// LogMaxSize and LogMaxFiles bound a container's logs: 10 MiB times 5.
	LogMaxSize  int64
	LogMaxFiles int
	// ParallelPulls is how many images are pulled at a time: 4.
	ParallelPulls int
	// Resync is how often a pod is looked at though nothing has happened: 90 s.
	// Events make it superfluous; it heals a lost one.
	Resync time.Duration
	// Version is what the Node announces as its kubelet's: v1.37.1.
	Version string
	// HostsFile is the host's own, for pods in the host's network: /etc/hosts.
	HostsFile string
	// Kubelet is the node's KubeletConfiguration as its files say it; nil means
	// that there are none. Fields of this Config that are set go before it, but
	// for the cluster's DNS servers and domain, which it may replace.
	Kubelet *settings.Kubelet
	// TuneKernel makes the kernel's settings those that upstream's kubelet wants
	// (settings.Loaded.TunesKernel). They stay when the agent ends.
	TuneKernel bool
	// PreparePod fills in the API's defaults in a static pod and validates it; nil
	// does neither.
	PreparePod func(*corev1.Pod) error
	// Observe says what the node has left; by default the machine is asked, or, of
	// a node whose Capacity is given, nobody: then nothing is ever evicted and no
	// image is removed.
	Observe func() pressure.Observations
	// Ending, when it closes, says that the machine goes down: the node's pods are
	// then ended by the configuration's shutdownGracePeriod. It may be nil.
	Ending <-chan struct{}
	// Counts counts what several agents of one process do together; nil means one of
	// this agent's own.
	Counts *tally.Tally
	// Flags are those that the process was started with, by name, for /flagz; nothing
	// secret.
	Flags map[string]string
	// Timeline receives the marks of the run step; it may be nil.
	Timeline *timeline.Recorder
	// Log may be nil.
	Log *slog.Logger

	// poll keeps to timers where the kernel would tell of changes: for tests, in
	// whose time nothing outside happens.
	poll bool
	// callers are ClientCAs, and those of the configuration's clientCAFile.
	callers *authorities
	// gates are upstream's feature gates, as the configuration has them.
	gates settings.Gates
	// plugins are listened to though Capacity is given.
	plugins bool
}

// complete checks cfg and fills its defaults in.
func (cfg Config) complete() (Config, error) {
	switch {
	case cfg.NodeName == "":
		return cfg, errors.New("agent: config has no node name")
	case len(cfg.NodeIPs) == 0:
		return cfg, errors.New("agent: config has no node address")
	case cfg.Transport == nil || cfg.Engine == nil:
		return cfg, errors.New("agent: config has no transport or no engine")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Counts == nil {
		cfg.Counts = tally.New(cfg.NodeName)
	}
	kubelet, err := cfg.heed()
	if err != nil {
		return cfg, err
	}
	cfg.Kubelet = kubelet
	or(&cfg.Root, filepath.Join(defaultData, "pods"))
	if cfg.Capacity == nil {
		or(&cfg.Made, filepath.Join(filepath.Dir(cfg.Root), "claims"))
	}
	or(&cfg.KubeletRoot, kubeletRoot(cfg.Root))
	or(&cfg.LogRoot, logRoot(cfg.Root))
	or(&cfg.SeccompRoot, filepath.Join(filepath.Dir(cfg.Root), "seccomp"))
	or(&cfg.Sys, "/sys")
	or(&cfg.CgroupRoot, defaultCgroup)
	or(&cfg.CgroupMount, cgroupMount)
	or(&cfg.ClusterDomain, defaultDomain)
	or(&cfg.Resync, defaultResync)
	or(&cfg.Version, defaultVersion)
	or(&cfg.HostsFile, defaultHostsFile)
	if cfg.Capacity != nil {
		return cfg, nil
	}
	return cfg, cfg.fits()
}

// logRoot is where logs are unless the configuration says otherwise. Where it does, a
// symbolic link there leads to them: Purge knows no configuration.
func logRoot(root string) string { return filepath.Join(filepath.Dir(root), "logs", "pods") }

// plugged: other programs on the machine find this node's sockets, since it is a whole one.
func (cfg Config) plugged() bool { return cfg.Capacity == nil || cfg.plugins }

// annotations are those of the node when it is registered.
func (cfg Config) annotations() map[string]string {
	if cfg.Made == "" {
		return nil
	}
	return map[string]string{volume.AnnDirectory: cfg.Made}
}

// kubeletRoot is where plugins look for us: where they look for any kubelet,
// unless this is one of several on the machine.
func kubeletRoot(root string) string {
	if root == filepath.Join(defaultData, "pods") {
		return defaultKubelet
	}
	return filepath.Join(filepath.Dir(root), "kubelet")
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
