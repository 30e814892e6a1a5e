// Package usage measures what pods use: memory and processes as the engine
// counts them, disk by looking. Measuring a disk costs a walk through every
// file, so it is done when somebody needs it and only for the pods asked for.
package usage

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/cri"
)

// maxFiles bounds one walk: what has more counts as that many and is large
// enough for every purpose.
const maxFiles = 5_000_000

// Disk is room on a file system.
type Disk struct{ Bytes, Inodes int64 }

// Add is both together.
func (d Disk) Add(o Disk) Disk { return Disk{d.Bytes + o.Bytes, d.Inodes + o.Inodes} }

// Container is what one container uses.
type Container struct {
	Name string
	// Memory is the working set in bytes.
	Memory int64
	// Root is the writable layer.
	Root, Logs Disk
}

// Pod is what a pod uses. Volumes are its emptyDirs on disk.
type Pod struct {
	Memory, Pids int64
	Containers   []Container
	Volumes      map[string]Disk
}

// Disk is all of a pod's local storage.
func (p Pod) Disk() Disk {
	sum := Disk{}
	for _, c := range p.Containers {
		sum = sum.Add(c.Root).Add(c.Logs)
	}
	for _, v := range p.Volumes {
		sum = sum.Add(v)
	}
	return sum
}

// Meter measures pods. It may be used from any goroutine.
type Meter struct {
	Engine cri.Engine
	// Logs and Volume say where a pod's logs and one of its emptyDirs are.
	Logs   func(*corev1.Pod) string
	Volume func(pod *corev1.Pod, name string) string
}

// Measure measures pods, by UID. Disks are looked at if disk says so.
func (m Meter) Measure(ctx context.Context, pods []*corev1.Pod, disk func(*corev1.Pod) bool) (map[string]Pod, error) {
	boxes, err := m.Engine.ListPodSandboxStats(ctx, &rt.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, fmt.Errorf("measure pods: %w", err)
	}
	containers, err := m.Engine.ListContainerStats(ctx, &rt.ListContainerStatsRequest{})
	if err != nil {
		return nil, fmt.Errorf("measure containers: %w", err)
	}
	all := map[string]Pod{}
	for _, b := range boxes.GetStats() {
		all[b.GetAttributes().GetMetadata().GetUid()] = Pod{
			Memory: int64(b.GetLinux().GetMemory().GetWorkingSetBytes().GetValue()),
			Pids:   int64(b.GetLinux().GetProcess().GetProcessCount().GetValue()),
		}
	}
	for _, c := range containers.GetStats() {
		uid := c.GetAttributes().GetLabels()[actual.LabelPodUID]
		p := all[uid]
		p.Containers = append(p.Containers, Container{
			Name: c.GetAttributes().GetMetadata().GetName(), Memory: int64(c.GetMemory().GetWorkingSetBytes().GetValue()),
			Root: Disk{int64(c.GetWritableLayer().GetUsedBytes().GetValue()), int64(c.GetWritableLayer().GetInodesUsed().GetValue())},
		})
		all[uid] = p
	}
	out := map[string]Pod{}
	for _, pod := range pods {
		p, ok := all[string(pod.UID)]
		if !ok {
			continue
		}
		if disk(pod) {
			m.disks(pod, &p)
		}
		out[string(pod.UID)] = p
	}
	return out, nil
}

func (m Meter) disks(pod *corev1.Pod, p *Pod) {
	for i := range p.Containers {
		p.Containers[i].Logs = Walk(filepath.Join(m.Logs(pod), p.Containers[i].Name))
	}
	p.Volumes = map[string]Disk{}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault {
			p.Volumes[v.Name] = Walk(m.Volume(pod, v.Name))
		}
	}
}

// Walk is the room that a directory and everything below it takes on its own
// file system, hard links counted once. What can't be read isn't counted.
func Walk(dir string) Disk {
	sum, seen, count := Disk{}, map[uint64]bool{}, 0
	device := uint64(0)
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if count++; count > maxFiles {
			return fs.SkipAll
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if device == 0 {
			device = st.Dev
		}
		if st.Dev != device {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		const block = 512 // stat(2): whatever the file system's own
		sum = sum.Add(Disk{st.Blocks * block, 1})
		return nil
	})
	return sum
}
