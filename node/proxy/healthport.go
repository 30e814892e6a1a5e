package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// askWait bounds how long a load balancer may take to ask.
const askWait = 5 * time.Second

// healthPorts answers at the health check node ports of services: a load balancer
// sends traffic only to nodes that have endpoints of a service whose external
// traffic policy is Local. Only the proxy's goroutine changes it.
type healthPorts struct {
	log    *slog.Logger
	netNS  string
	nodes  []netip.Addr // none: all of the host's
	health *health
	open   map[types.NamespacedName]*healthPort
}

// healthPort is one service's.
type healthPort struct {
	port    int32
	service types.NamespacedName
	health  *health
	servers []*http.Server

	mu    sync.Mutex // guards local
	local int
}

// set brings a service's port to what the service says; nil is a service that is gone.
func (h *healthPorts) set(name types.NamespacedName, svc *corev1.Service, local int) {
	port := int32(0)
	if svc != nil && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		port = svc.Spec.HealthCheckNodePort
	}
	if one := h.open[name]; one != nil {
		if one.port == port {
			one.set(local)
			return
		}
		one.close()
		delete(h.open, name)
	}
	if port == 0 {
		return
	}
	one := &healthPort{port: port, service: name, health: h.health, local: local}
	if err := one.listen(h); err != nil {
		one.close()
		h.log.Warn("a service's health check port cannot be opened", "service", name.String(), "port", port, "error", err)
		return
	}
	h.open[name] = one
}

// close ends all of them.
func (h *healthPorts) close() {
	for _, one := range h.open {
		one.close()
	}
	clear(h.open)
}

func (p *healthPort) set(local int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.local = local
}

func (p *healthPort) listen(h *healthPorts) error {
	hosts := []string{""}
	if len(h.nodes) > 0 {
		hosts = hosts[:0]
		for _, a := range h.nodes {
			hosts = append(hosts, a.String())
		}
	}
	for _, host := range hosts {
		l, err := listenIn(h.netNS, net.JoinHostPort(host, strconv.Itoa(int(p.port))))
		if err != nil {
			return err
		}
		s := &http.Server{Handler: p, ReadHeaderTimeout: askWait, IdleTimeout: askWait, MaxHeaderBytes: 1 << 13, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
		p.servers = append(p.servers, s)
		go func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				h.log.Warn("a service's health check port does not answer any more", "service", p.service.String(), "error", err)
			}
		}()
	}
	return nil
}

func (p *healthPort) close() {
	for _, s := range p.servers {
		_ = s.Close() // whoever asks now finds nobody, which is an answer too
	}
}

// ServeHTTP tells how many endpoints the service has here, in upstream's form.
func (p *healthPort) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	local := p.local
	p.mu.Unlock()
	well, _ := p.health.ok(time.Now())
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
	answer(w, local > 0 && well)
	fmt.Fprintf(w, "{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %v\n}",
		p.service.Namespace, p.service.Name, local, well)
}

// localReady counts a service's endpoints on a node that are ready.
func localReady(slices []*discoveryv1.EndpointSlice, node string) int {
	seen := map[string]bool{}
	for _, s := range slices {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if e.NodeName == nil || *e.NodeName != node || e.Conditions.Ready != nil && !*e.Conditions.Ready || len(e.Addresses) == 0 {
				continue
			}
			seen[e.Addresses[0]] = true
		}
	}
	return len(seen)
}

// listenIn listens in the network namespace at path, or in the process's own when
// it is empty.
func listenIn(path, address string) (net.Listener, error) {
	if path == "" {
		return (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	}
	there, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer here.Close()
	if err := netns.Set(there); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace %q: %w", path, err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if back := netns.Set(here); back != nil { // the thread stays locked, and ends with its goroutine
		return nil, errors.Join(err, fmt.Errorf("leave network namespace %q: %w", path, back))
	}
	runtime.UnlockOSThread()
	return l, err
}
