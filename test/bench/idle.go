package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

const (
	// idlePods run while nothing happens.
	idlePods = 10
	// settle is how long what has begun may finish, idleFor how long we look.
	settle, idleFor = 20 * time.Second, 60 * time.Second
)

// idle measures the memory, the processor time and the writes of a cluster with
// ten pods to which nothing happens.
func idle(ctx context.Context) (rows []row, err error) {
	c, err := up(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := c.down(ctx); err == nil {
			err = e
		}
	}()
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	for i := range idlePods {
		if _, err := client.Pods.Create(ctx, c, pod(fmt.Sprintf("idle-%d", i), "idle")); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	before, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return nil, err
	}
	after, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	cpu := (after.cpu - before.cpu).Seconds() / idleFor.Seconds() * 100
	return []row{
		{fmt.Sprintf("idle with %d pods: PSS of sampan and its keepers", idlePods), fmt.Sprintf("%.0f MiB in %d processes", float64(after.pss)/(1<<20), after.processes), "<= 120 MiB"},
		{"idle: processor", fmt.Sprintf("%.2f %% of one core", cpu), "<= 1 %"},
		{"idle: writes to the store", fmt.Sprintf("%.2f a second", float64(after.revision-before.revision)/idleFor.Seconds()), "leases only"},
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// usage is what the cluster has used so far.
type usage struct {
	pss       int64
	cpu       time.Duration
	processes int
	revision  int64
}

// usage adds up sampan and every keeper, but no container's own process.
func (c *cluster) usage(ctx context.Context) (u usage, err error) {
	found, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return u, err
	}
	for _, f := range found {
		dir := filepath.Dir(f)
		if !ours(dir, c.dir) {
			continue
		}
		pss, err := field(filepath.Join(dir, "smaps_rollup"), "Pss:")
		if err != nil {
			continue // ended meanwhile
		}
		u.pss += pss << 10
		u.cpu += processor(dir)
		u.processes++
	}
	list, err := c.List(ctx, nodesTarget, metav1.ListOptions{})
	if err != nil {
		return u, err
	}
	// Reading changes no revision, so the list's is the last write's.
	u.revision, err = strconv.ParseInt(list.(*corev1.NodeList).ResourceVersion, 10, 64)
	return u, err
}

// ours says whether a process is this cluster's sampan or one of its keepers.
func ours(proc, data string) bool {
	cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if err != nil {
		return false
	}
	comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
	if strings.Contains(string(cmdline), data) {
		return true
	}
	mine, _ := os.Readlink("/proc/self/ns/net")
	theirs, _ := os.Readlink(filepath.Join(proc, "ns", "net"))
	return strings.HasPrefix(string(comm), "sampan-keeper") && mine == theirs
}

// field is a number of a "Name: 12 kB" file.
func field(path, name string) (int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// processor is a process's time in user and kernel mode.
func processor(proc string) time.Duration {
	raw, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	const user, system, hertz = 11, 12, 100
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hertz
}
