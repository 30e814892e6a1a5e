package engine

import (
	"context"
	"errors"
	"net/netip"
	"path"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine/spec"
	"github.com/sampan-dev/sampan/node/network"
)

// RunPodSandbox makes a sandbox: pinned namespaces, its files, its network. When
// any of that fails, all of it is undone; what cannot be undone is kept as a
// sandbox that is not ready, for the caller to remove.
func (e *Engine) RunPodSandbox(ctx context.Context, r *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	if err := checkSandbox(r); err != nil {
		return nil, err
	}
	if err := e.checkHandler(r); err != nil {
		return nil, err
	}
	s := &sandbox{ID: newID(), Config: proto.CloneOf(r.GetConfig()), Handler: r.GetRuntimeHandler(), CreatedAt: time.Now().UnixNano()}
	defer e.busy.Lock(s.ID)()
	if err := e.reserve(s); err != nil {
		return nil, err
	}
	defer e.records.made(s.ID)
	ready, err := e.makeSandbox(ctx, s)
	if err != nil {
		undo := e.unmakeSandbox(context.WithoutCancel(ctx), s)
		if undo == nil {
			undo = e.records.dropSandbox(s)
		}
		if undo != nil {
			e.log.Warn("failed sandbox is not undone", "sandbox", s.ID, "pod", podName(s.Config), "error", undo)
		}
		return nil, coded(err)
	}
	e.records.made(s.ID)
	e.announce(ready.ID, ready.ID, rt.ContainerEventType_CONTAINER_CREATED_EVENT)
	e.announce(ready.ID, ready.ID, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &rt.RunPodSandboxResponse{PodSandboxId: ready.ID}, nil
}

// makeSandbox does at once what does not wait for each other: the files, and the
// namespaces with the network after them. The record comes last: what has none when the
// engine starts again is cleared away.
func (e *Engine) makeSandbox(ctx context.Context, s *sandbox) (*sandbox, error) {
	ready := *s
	var g errgroup.Group
	g.Go(func() error { return e.files(s.ID).make(s.Config) })
	g.Go(func() error {
		made, err := e.runtime.CreateSandbox(ctx, e.sandboxConfig(s))
		if err != nil {
			return err
		}
		ready.NetNS = made.NetNS()
		if hostNetwork(s.Config) || spec.NoNetwork(s.Config) {
			return nil
		}
		res, err := e.network.Attach(ctx, attachment(s, ready.NetNS))
		ready.IPs = res.IPs
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := e.files(s.ID).makeHosts(s.Config, ready.IPs); err != nil {
		return nil, err
	}
	ready.Ready = true
	return &ready, e.records.putSandbox(&ready)
}

// unmakeSandbox gives back everything but the record.
func (e *Engine) unmakeSandbox(ctx context.Context, s *sandbox) error {
	if err := e.network.Detach(ctx, attachment(s, s.NetNS)); err != nil {
		return err
	}
	return errors.Join(e.runtime.RemoveSandbox(ctx, s.ID), e.files(s.ID).remove())
}

func (e *Engine) sandboxConfig(s *sandbox) container.SandboxConfig {
	c := s.Config
	cfg := container.SandboxConfig{
		ID:           s.ID,
		Hostname:     c.GetHostname(),
		HostNetwork:  hostNetwork(c),
		HostIPC:      hostIPC(c),
		HostPID:      hostPID(c),
		SharePID:     namespaces(c).GetPid() == rt.NamespaceMode_POD,
		Sysctls:      c.GetLinux().GetSysctls(),
		CgroupParent: e.cgroupParent(c),
	}
	if limits := c.GetLinux().GetResources(); limits != nil {
		cfg.Resources = spec.Resources(limits)
	}
	if u := namespaces(c).GetUsernsOptions(); userNamespace(c) {
		cfg.UserNS = &container.IDMappings{UID: spec.IDMappings(u.GetUids()), GID: spec.IDMappings(u.GetGids())}
	}
	return cfg
}

// userNamespace tells whether the pod's users are others than the host's. The
// CRI's zero value says so too, but with no mappings.
func userNamespace(c *rt.PodSandboxConfig) bool {
	u := namespaces(c).GetUsernsOptions()
	return u.GetMode() == rt.NamespaceMode_POD && len(u.GetUids())+len(u.GetGids()) > 0
}

// cgroupParent is the pod's, or one of the engine's own with the pod's name.
func (e *Engine) cgroupParent(c *rt.PodSandboxConfig) string {
	if parent := c.GetLinux().GetCgroupParent(); parent != "" {
		return path.Join("/", parent)
	}
	return path.Join(e.cfg.Cgroup, "pod"+path.Base(path.Join("/", c.GetMetadata().GetUid())))
}

func attachment(s *sandbox, netns string) network.Attachment {
	m := s.Config.GetMetadata()
	a := network.Attachment{ID: s.ID, NetNS: netns, PodNamespace: m.GetNamespace(), PodName: m.GetName(), PodUID: m.GetUid(),
		Hostname: s.Config.GetHostname(), Labels: s.Config.GetLabels()}
	for _, p := range s.Config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		ip, _ := netip.ParseAddr(p.GetHostIp()) // checked before
		a.Ports = append(a.Ports, network.PortMapping{Protocol: p.GetProtocol().String(),
			ContainerPort: uint16(p.GetContainerPort()), HostPort: uint16(p.GetHostPort()), HostIP: ip})
	}
	return a
}

// mapsRoot says whether a mapping has the container's root.
func mapsRoot(maps []*rt.IDMapping) bool {
	return slices.ContainsFunc(maps, func(m *rt.IDMapping) bool { return m.GetContainerId() == 0 && m.GetLength() > 0 })
}

const maxPort = 1<<16 - 1

func checkSandbox(r *rt.RunPodSandboxRequest) error {
	c := r.GetConfig()
	m := c.GetMetadata()
	switch {
	case c == nil || m == nil:
		return invalid("sandbox has no metadata")
	case m.GetName() == "" || m.GetUid() == "":
		return invalid("sandbox metadata has no name or no uid: %v", m)
	}
	switch mode := namespaces(c).GetUsernsOptions().GetMode(); mode {
	case rt.NamespaceMode_POD, rt.NamespaceMode_NODE:
	default:
		return invalid("sandbox %q: users' namespace of mode %s; it is the pod's or the node's", podName(c), mode)
	}
	if u := namespaces(c).GetUsernsOptions(); userNamespace(c) && !(mapsRoot(u.GetUids()) && mapsRoot(u.GetGids())) {
		return invalid("sandbox %q: its user namespace has no user or no group 0, whom it is made for", podName(c))
	}
	if userNamespace(c) && (hostNetwork(c) || hostIPC(c) || hostPID(c)) {
		return invalid("sandbox %q wants a user namespace together with a namespace of the host", podName(c))
	}
	if sc := c.GetLinux().GetSecurityContext(); sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return invalid("sandbox %q has a group to run as but no user", podName(c))
	}
	if spec.NoNetwork(c) && hostNetwork(c) {
		return invalid("sandbox %q wants the network of the host, and none", podName(c))
	}
	for _, p := range c.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		if p.GetHostPort() < 0 || p.GetHostPort() > maxPort || p.GetContainerPort() <= 0 || p.GetContainerPort() > maxPort {
			return invalid("sandbox %q: port mapping %v is out of range", podName(c), p)
		}
		if _, err := netip.ParseAddr(p.GetHostIp()); p.GetHostIp() != "" && err != nil {
			return invalid("sandbox %q: host address of a port mapping: %w", podName(c), err)
		}
	}
	return nil
}
