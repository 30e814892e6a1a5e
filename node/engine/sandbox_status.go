package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSandboxStatus tells a sandbox's state, addresses and configuration, and,
// as containerd and CRI-O do, its containers' statuses with it.
func (e *Engine) PodSandboxStatus(_ context.Context, r *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	s := e.records.sandbox(r.GetPodSandboxId())
	if s == nil {
		return nil, notFound("sandbox %q is not found", r.GetPodSandboxId())
	}
	out := &rt.PodSandboxStatusResponse{Status: s.status(), ContainersStatuses: e.statusesOf(s.ID), Timestamp: time.Now().UnixNano()}
	if r.GetVerbose() {
		info, err := json.Marshal(map[string]any{"netns": s.NetNS, "cgroupParent": e.cgroupParent(s.Config), "files": e.files(s.ID).dir})
		if err != nil {
			return nil, coded(fmt.Errorf("sandbox %q: encode info: %w", s.ID, err))
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

func (s *sandbox) state() rt.PodSandboxState {
	if s.Ready {
		return rt.PodSandboxState_SANDBOX_READY
	}
	return rt.PodSandboxState_SANDBOX_NOTREADY
}

func (s *sandbox) status() *rt.PodSandboxStatus {
	ns := namespaces(s.Config)
	out := &rt.PodSandboxStatus{
		Id:             s.ID,
		Metadata:       s.Config.GetMetadata(),
		State:          s.state(),
		CreatedAt:      s.CreatedAt,
		Network:        &rt.PodSandboxNetworkStatus{},
		Linux:          &rt.LinuxPodSandboxStatus{Namespaces: &rt.Namespace{Options: ns}},
		Labels:         s.Config.GetLabels(),
		Annotations:    s.Config.GetAnnotations(),
		RuntimeHandler: s.Handler,
	}
	if !s.Ready {
		return out // its addresses may be another's by now
	}
	for i, ip := range s.IPs {
		if i == 0 {
			out.Network.Ip = ip.String()
			continue
		}
		out.Network.AdditionalIps = append(out.Network.AdditionalIps, &rt.PodIP{Ip: ip.String()})
	}
	return out
}
