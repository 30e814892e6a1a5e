package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// The versions that Version tells: of the kubelet's side, which has not changed
// since 2016, and of the CRI.
const (
	kubeletAPIVersion = "0.1.0"
	criVersion        = "v1"
)

// Version tells name and version.
func (e *Engine) Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{Version: kubeletAPIVersion, RuntimeName: Name, RuntimeVersion: e.cfg.Version, RuntimeApiVersion: criVersion}, nil
}

// keeperPatience is how long a keeper may take to show that it lives.
const keeperPatience = 10 * time.Second

// Status tells whether pods can be run: the engine can as long as the keeper
// answers, the network when it knows its addresses.
func (e *Engine) Status(ctx context.Context, r *rt.StatusRequest) (*rt.StatusResponse, error) {
	ready := e.runtimeReady(ctx)
	net := &rt.RuntimeCondition{Type: rt.NetworkReady, Status: true}
	if err := e.network.Check(ctx); err != nil {
		net.Status, net.Reason, net.Message = false, "NetworkPluginNotReady", "pod network is not ready: "+err.Error()
	}
	out := &rt.StatusResponse{
		Status:          &rt.RuntimeStatus{Conditions: []*rt.RuntimeCondition{ready, net}},
		RuntimeHandlers: e.handlers(),
		Features:        &rt.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true},
	}
	if r.GetVerbose() {
		info, err := json.Marshal(map[string]any{"root": e.cfg.Root, "run": e.cfg.Run, "cgroup": e.cfg.Cgroup,
			"pidsLimit": e.cfg.PidsLimit, "capabilities": e.hostCaps})
		if err != nil {
			return nil, coded(fmt.Errorf("encode info: %w", err))
		}
		out.Info = map[string]string{"config": string(info)}
	}
	return out, nil
}

func (e *Engine) runtimeReady(ctx context.Context) *rt.RuntimeCondition {
	if e.unfit != nil {
		return &rt.RuntimeCondition{Type: rt.RuntimeReady, Reason: "MachineUnfit", Message: e.unfit.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	if err := e.runtime.Check(ctx); err != nil {
		return &rt.RuntimeCondition{Type: rt.RuntimeReady, Reason: "KeeperNotResponding", Message: err.Error()}
	}
	return &rt.RuntimeCondition{Type: rt.RuntimeReady, Status: true}
}

// RuntimeConfig tells the agent to make pods' cgroups itself, as directories.
func (e *Engine) RuntimeConfig(context.Context, *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return &rt.RuntimeConfigResponse{Linux: &rt.LinuxRuntimeConfiguration{CgroupDriver: rt.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig takes the node's pod CIDRs, one of each family, separated
// by a comma, and remembers them.
func (e *Engine) UpdateRuntimeConfig(_ context.Context, r *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	text := r.GetRuntimeConfig().GetNetworkConfig().GetPodCidr()
	if text == "" {
		return &rt.UpdateRuntimeConfigResponse{}, nil
	}
	var prefixes []netip.Prefix
	for s := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		if err != nil {
			return nil, invalid("pod CIDR %q: %w", s, err)
		}
		prefixes = append(prefixes, p)
	}
	if err := e.network.SetPodCIDR(prefixes...); err != nil {
		return nil, coded(fmt.Errorf("pod CIDR %q: %w", text, err))
	}
	if err := atomicfile.WriteJSON(e.podCIDRFile(), prefixes); err != nil {
		return nil, coded(fmt.Errorf("remember pod CIDR %q: %w", text, err))
	}
	return &rt.UpdateRuntimeConfigResponse{}, nil
}
