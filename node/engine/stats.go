package engine

import (
	"context"
	"errors"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// ContainerStats tells what one container uses. One that does not run uses
// nothing but its writable layer.
func (e *Engine) ContainerStats(_ context.Context, r *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	c, err := e.container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	s, err := e.statsOf(c)
	if err != nil {
		return nil, coded(err)
	}
	return &rt.ContainerStatsResponse{Stats: s}, nil
}

// ListContainerStats tells what the containers of the filter use that run.
func (e *Engine) ListContainerStats(_ context.Context, r *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	f := r.GetFilter()
	out := &rt.ListContainerStatsResponse{}
	for _, c := range e.records.allContainers() {
		if !strings.HasPrefix(c.ID, f.GetId()) || !strings.HasPrefix(c.SandboxID, f.GetPodSandboxId()) ||
			!selected(f.GetLabelSelector(), c.Config.GetLabels()) {
			continue
		}
		s, err := e.runningStats(c)
		if err != nil {
			return nil, coded(err)
		}
		if s != nil {
			out.Stats = append(out.Stats, s)
		}
	}
	return out, nil
}

// runningStats is nil for a container that does not run, or ends meanwhile.
func (e *Engine) runningStats(c *ctr) (*rt.ContainerStats, error) {
	s, _, err := e.runningMeasured(c)
	return s, err
}

// runningMeasured is measured for a container that runs: nothing for another.
func (e *Engine) runningMeasured(c *ctr) (*rt.ContainerStats, *container.Usage, error) {
	running, err := e.isRunning(c.ID)
	if err != nil || !running {
		return nil, nil, err
	}
	s, u, err := e.measured(c)
	if err != nil {
		if running, again := e.isRunning(c.ID); again == nil && !running {
			return nil, nil, nil
		}
	}
	return s, u, err
}

func (e *Engine) statsOf(c *ctr) (*rt.ContainerStats, error) {
	s, _, err := e.measured(c)
	return s, err
}

// measured is what statsOf tells and all that the kernel has counted, which is nil
// for a container that does not run.
func (e *Engine) measured(c *ctr) (*rt.ContainerStats, *container.Usage, error) {
	out := &rt.ContainerStats{Attributes: &rt.ContainerAttributes{Id: c.ID, Metadata: c.Config.GetMetadata(),
		Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations()}}
	now := time.Now().UnixNano()
	if disk, err := e.images.SnapshotUsage(c.snapshot()); err == nil {
		out.WritableLayer = &rt.FilesystemUsage{Timestamp: now, FsId: &rt.FilesystemIdentifier{Mountpoint: e.images.Root()}, UsedBytes: value(uint64(disk.Bytes)), InodesUsed: value(uint64(disk.Inodes))}
	}
	u, err := e.runtime.Stats(c.ID)
	if errors.Is(err, container.ErrNotFound) {
		return out, nil, nil
	}
	if err != nil {
		if running, again := e.isRunning(c.ID); again == nil && !running {
			return out, nil, nil // its cgroup went with it
		}
		return nil, nil, err
	}
	out.Cpu, out.Memory, out.Io = usedCPU(&u, now), usedMemory(&u, now), usedIO(&u, now)
	out.Swap = &rt.SwapUsage{Timestamp: now, SwapUsageBytes: value(u.Swap)}
	if u.SwapLimit != nil {
		out.Swap.SwapAvailableBytes = value(*u.SwapLimit - min(u.Swap, *u.SwapLimit))
	}
	return out, &u, nil
}

func usedCPU(u *container.Usage, now int64) *rt.CpuUsage {
	return &rt.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: value(u.CPU), Psi: pressure(u.CPUPressure)}
}

func usedMemory(u *container.Usage, now int64) *rt.MemoryUsage {
	out := &rt.MemoryUsage{Timestamp: now, WorkingSetBytes: value(u.WorkingSet), UsageBytes: value(u.Memory), RssBytes: value(u.RSS),
		PageFaults: value(u.PageFaults), MajorPageFaults: value(u.MajorFaults), Psi: pressure(u.MemoryPressure)}
	if u.Limit > u.WorkingSet {
		out.AvailableBytes = value(u.Limit - u.WorkingSet)
	}
	return out
}

// usedIO is nil where the kernel doesn't tell.
func usedIO(u *container.Usage, now int64) *rt.IoUsage {
	if u.IOPressure == nil {
		return nil
	}
	return &rt.IoUsage{Timestamp: now, Psi: pressure(u.IOPressure)}
}

func pressure(p *container.Pressure) *rt.PsiStats {
	if p == nil {
		return nil
	}
	return &rt.PsiStats{
		Some: &rt.PsiData{Total: p.Some.Total, Avg10: p.Some.Avg10, Avg60: p.Some.Avg60, Avg300: p.Some.Avg300},
		Full: &rt.PsiData{Total: p.Full.Total, Avg10: p.Full.Avg10, Avg60: p.Full.Avg60, Avg300: p.Full.Avg300},
	}
}

// PodSandboxStats tells what a sandbox's containers use together, and what went
// over its network interface.
func (e *Engine) PodSandboxStats(_ context.Context, r *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	s := e.records.sandbox(r.GetPodSandboxId())
	if s == nil {
		return nil, notFound("sandbox %q is not found", r.GetPodSandboxId())
	}
	out, _, err := e.sandboxStats(s)
	if err != nil {
		return nil, coded(err)
	}
	return &rt.PodSandboxStatsResponse{Stats: out}, nil
}

// ListPodSandboxStats tells what the ready sandboxes of the filter use.
func (e *Engine) ListPodSandboxStats(_ context.Context, r *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	f := r.GetFilter()
	out := &rt.ListPodSandboxStatsResponse{}
	for _, s := range e.records.allSandboxes() {
		if !s.Ready || !strings.HasPrefix(s.ID, f.GetId()) || !selected(f.GetLabelSelector(), s.Config.GetLabels()) {
			continue
		}
		st, _, err := e.sandboxStats(s)
		if err != nil {
			return nil, coded(err)
		}
		out.Stats = append(out.Stats, st)
	}
	return out, nil
}

// sandboxStats are those of a sandbox, and what its running containers have used
// by their IDs.
func (e *Engine) sandboxStats(s *sandbox) (*rt.PodSandboxStats, map[string]*container.Usage, error) {
	used := map[string]*container.Usage{}
	now := time.Now().UnixNano()
	linux := &rt.LinuxPodSandboxStats{
		Cpu:     &rt.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: value(0)},
		Memory:  &rt.MemoryUsage{Timestamp: now, WorkingSetBytes: value(0), UsageBytes: value(0), RssBytes: value(0), PageFaults: value(0), MajorPageFaults: value(0)},
		Process: &rt.ProcessUsage{Timestamp: now, ProcessCount: value(0)},
	}
	for _, c := range e.records.containersOf(s.ID) {
		st, u, err := e.runningMeasured(c)
		if err != nil {
			return nil, nil, err
		}
		if st == nil || u == nil {
			continue
		}
		used[c.ID] = u
		linux.Containers = append(linux.Containers, st)
		linux.Cpu.UsageCoreNanoSeconds.Value += st.Cpu.UsageCoreNanoSeconds.GetValue()
		linux.Memory.WorkingSetBytes.Value += st.Memory.WorkingSetBytes.GetValue()
		linux.Memory.UsageBytes.Value += st.Memory.UsageBytes.GetValue()
		linux.Memory.RssBytes.Value += st.Memory.RssBytes.GetValue()
		linux.Memory.PageFaults.Value += st.Memory.PageFaults.GetValue()
		linux.Memory.MajorPageFaults.Value += st.Memory.MajorPageFaults.GetValue()
		linux.Process.ProcessCount.Value += u.Pids
	}
	// What containers that have ended used is in the cgroup of all, and so is what
	// volumes in memory take. Its numbers only grow, where sums of those that run don't.
	if u, err := e.runtime.GroupStats(s.ID); err == nil {
		linux.Cpu, linux.Memory, linux.Io = usedCPU(&u, now), usedMemory(&u, now), usedIO(&u, now)
		linux.Process.ProcessCount = value(u.Pids)
	}
	if u, ok := e.network.Usage(s.ID); ok {
		linux.Network = &rt.NetworkUsage{Timestamp: now, DefaultInterface: &rt.NetworkInterfaceUsage{Name: u.Interface,
			RxBytes: value(u.RxBytes), RxErrors: value(u.RxErrors), TxBytes: value(u.TxBytes), TxErrors: value(u.TxErrors)}}
	}
	return &rt.PodSandboxStats{Linux: linux, Attributes: &rt.PodSandboxAttributes{Id: s.ID, Metadata: s.Config.GetMetadata(),
		Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations()}}, used, nil
}

func value(n uint64) *rt.UInt64Value { return &rt.UInt64Value{Value: n} }
