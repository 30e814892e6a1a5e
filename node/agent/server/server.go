// Package server is the kubelet's HTTPS API: what the API server asks a node
// for on behalf of kubectl logs, exec, attach and port-forward, and what
// monitoring scrapes. Every request is authenticated and authorised by the
// functions that the wiring gives; nothing is open to everybody.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/profiles"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/cri"
)

// Container is where one container of a pod is to be found.
type Container struct {
	// ID is the engine's, "" when the engine doesn't have it any more.
	ID string
	// LogPath is the log's place, "" when there never was one.
	LogPath string
	// Running tells whether more may come.
	Running bool
	// Attempt is how often it was restarted before this run.
	Attempt int32
	// StdinOnce tells that it is made for one client, who is given what the container
	// printed before it came.
	StdinOnce bool
}

// Node is what the server knows about the node's pods; the agent implements it.
type Node interface {
	// Pods are the pods bound to the node, as the API has them.
	Pods() []*corev1.Pod
	// Container finds a pod's container, or the one before it. The error is for
	// the caller to read.
	Container(ctx context.Context, namespace, pod, container string, previous bool) (Container, error)
	// Sandbox is the id of a pod's running sandbox.
	Sandbox(ctx context.Context, namespace, pod string) (string, error)
}

// Config is what New needs; Authn and Authz may be nil, and then refuse.
type Config struct {
	Node     Node
	NodeName string
	Engine   cri.Engine
	Authn    func(*http.Request) (identity.Identity, bool)
	// Authz judges verb on a node's subresource.
	Authz func(ctx context.Context, who identity.Identity, verb, subresource string) bool
	// Settings is what /configz shows.
	Settings any
	// Probes is what /metrics/probes shows; nil for nothing.
	Probes *Probes
	// Counts are on /metrics too.
	Counts []prometheus.Collector
	// Version is upstream's that the node says it is, v1.37.1.
	Version string
	// Disks is where pods keep things; the zero value measures none.
	Disks Disks
	// PodMemory is how much memory all pods together may use, in bytes; 0 is not known.
	PodMemory uint64
	// Checkpoints is the directory that /checkpoint has files written to; "" means that
	// there is no /checkpoint.
	Checkpoints string
	// SystemLogs is the directory that /logs/ shows, /var/log say; "" shows none.
	SystemLogs string
	// Questions has /logs/ answer questions about the node's services too.
	Questions bool
	// Gates are upstream's feature gates, as /metrics shows them.
	Gates []settings.Gate
	// Translated serves the WebSocket protocols that engines don't speak: v5 of exec and
	// attach, and SPDY inside a WebSocket.
	Translated bool
	// Closed shuts what reaches into pods: logs, exec, attach, port-forward.
	Closed bool
	// Pages are /statusz and /flagz, unless Closed.
	Pages Pages
	// Profiled serves what the Go runtime knows of the process, unless Closed.
	Profiled bool
	Log      *slog.Logger
}

// Server answers the kubelet API.
type Server struct {
	cfg   Config
	rates rates
	tally requests
}

// Limits of the server.
const (
	headerTimeout = 10 * time.Second
	maxHeader     = 64 << 10
)

// New returns the API as a handler.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, tally: newRequests()}
	mux, patterns := http.NewServeMux(), []string(nil)
	get := func(pattern string, h http.HandlerFunc, subresources ...string) {
		patterns = append(patterns, pattern)
		mux.HandleFunc("GET "+pattern, s.counted(pattern, s.guard("get", h, subresources...)))
	}
	get("/healthz", s.healthz, "healthz", proxy)
	get("/healthz/{rest...}", s.healthz, "healthz", proxy)
	get("/pods", s.pods, "pods", proxy)
	get("/pods/", s.pods, "pods", proxy)
	get("/configz", s.configz, "configz", proxy)
	get("/stats/summary", s.summary, "stats")
	get("/metrics", s.metrics(), "metrics")
	get("/metrics/resource", s.resourceMetrics, "metrics")
	get("/metrics/cadvisor", s.cadvisor, "metrics")
	get("/logs", http.RedirectHandler("/logs/", http.StatusMovedPermanently).ServeHTTP, "log")
	get("/logs/", s.systemLogs, "log")
	if cfg.Probes != nil {
		get("/metrics/probes", cfg.Probes.handler(), "metrics")
	}
	if cfg.Profiled {
		get(profiles.Path, s.open(profiles.Handler().ServeHTTP), proxy)
	}
	if cfg.Checkpoints != "" {
		mux.HandleFunc("POST /checkpoint/{namespace}/{pod}/{container}", s.counted("/checkpoint", s.guard("create", s.checkpoint, "checkpoint")))
	}
	if !cfg.Closed {
		s.pages(patterns, get)
	}
	get("/runningpods", s.open(s.runningPods), "pods", proxy)
	get("/runningpods/", s.open(s.runningPods), "pods", proxy)
	get("/containerLogs/{namespace}/{pod}/{container}", s.open(s.logs), "log", proxy)
	// These change what runs whatever their HTTP method, which clients choose:
	// an upgrade to a websocket must be a GET. So they are "create" always.
	change := func(path, subresource string, h http.HandlerFunc) {
		guarded := s.counted(path, s.guard("create", s.open(h), subresource, proxy))
		mux.HandleFunc("GET "+path, guarded)
		mux.HandleFunc("POST "+path, guarded)
	}
	change("/exec/{namespace}/{pod}/{container}", "exec", s.exec)
	change("/exec/{namespace}/{pod}/{uid}/{container}", "exec", s.exec)
	change("/attach/{namespace}/{pod}/{container}", "attach", s.attach)
	change("/attach/{namespace}/{pod}/{uid}/{container}", "attach", s.attach)
	change("/portForward/{namespace}/{pod}", "portforward", s.portForward)
	change("/portForward/{namespace}/{pod}/{uid}", "portforward", s.portForward)
	return mux
}

// ReadOnly is what upstream's kubelet shows to everybody on its read-only port: health, pods
// and figures. Nothing in it reaches into pods.
func ReadOnly(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, tally: newRequests()}
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"/healthz": s.healthz, "/pods": s.pods, "/pods/": s.pods, "/stats/summary": s.summary,
		"/metrics": s.metrics(), "/metrics/resource": s.resourceMetrics, "/metrics/cadvisor": s.cadvisor,
	} {
		mux.HandleFunc("GET "+pattern, s.counted(pattern, h))
	}
	if cfg.Probes != nil {
		mux.HandleFunc("GET /metrics/probes", s.counted("/metrics/probes", cfg.Probes.handler()))
	}
	return mux
}

// HTTP is a server for h with the limits that an open port needs.
func HTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// proxy is the subresource of all that has none of its own; upstream's roles
// grant it.
const proxy = "proxy"

// open refuses what reaches into pods on a node where that is switched off.
func (s *Server) open(h http.HandlerFunc) http.HandlerFunc {
	if !s.cfg.Closed {
		return h
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Debug endpoints are disabled.", http.StatusMethodNotAllowed)
	}
}

// guard lets a request through that may do verb on one of the node's
// subresources.
func (s *Server) guard(verb string, h http.HandlerFunc, subresources ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Authn == nil || s.cfg.Authz == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		who, ok := s.cfg.Authn(r)
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if !slices.ContainsFunc(subresources, func(name string) bool { return s.cfg.Authz(r.Context(), who, verb, name) }) {
			msg := fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.Name, verb, subresources)
			http.Error(w, msg, http.StatusForbidden)
			return
		}
		h(w, r)
	}
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }

func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	s.json(w, map[string]any{"kubeletconfig": s.cfg.Settings})
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := podList()
	for _, p := range s.cfg.Node.Pods() {
		list.Items = append(list.Items, *p)
	}
	s.json(w, list)
}

func podList() corev1.PodList {
	return corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
}

func (s *Server) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.cfg.Log.Debug("an answer was cut off", "err", err)
	}
}
