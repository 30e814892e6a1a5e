package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// criRounds is how many pods each engine makes, one after the other and in
	// turns, execRounds how often it runs a program in one of them.
	criRounds, execRounds = 60, 300
	// heavyPods are how many pods the memory for one is told from.
	heavyPods = 50
)

// criCase measures engines by the CRI on their sockets, ours beside Debian's
// containerd: a pod's three calls, an exec probe, and what they weigh for a pod.
func criCase(ctx context.Context) (rows []row, err error) {
	ours, theirs, closeAll, err := contest(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	engines := []*contestant{ours}
	if theirs != nil {
		engines = append(engines, theirs)
	}
	for _, part := range []func(context.Context, []*contestant) ([]row, error){weights, podsInTurn, execsInTurn} {
		more, err := part(ctx, engines)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return append(rows, row{"load of the machine meanwhile", load(), ""}), nil
}

// load is the machine's, over the last one, five and fifteen minutes.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	var one, five, fifteen string
	if _, err := fmt.Sscan(string(raw), &one, &five, &fifteen); err != nil {
		return "unknown"
	}
	return one + " " + five + " " + fifteen
}

// podsInTurn takes the time from the call for a sandbox to the answer that its
// container runs.
func podsInTurn(ctx context.Context, engines []*contestant) ([]row, error) {
	took, spent := map[string][]time.Duration{}, map[string]time.Duration{}
	for _, e := range engines {
		spent[e.name] = -processor(filepath.Join("/proc", strconv.Itoa(e.pid)))
	}
	for range criRounds {
		for _, e := range engines {
			begin := time.Now()
			pod, _, err := e.run(ctx)
			took[e.name] = append(took[e.name], time.Since(begin))
			if err := errors.Join(err, e.drop(ctx, pod)); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range engines {
		spent[e.name] += processor(filepath.Join("/proc", strconv.Itoa(e.pid)))
	}
	return append(inTurn("RunPodSandbox, CreateContainer, StartContainer", "<= 15 ms", "<= 0.125", engines, took),
		row{"… and their end: processor of the engine's own process", fmt.Sprintf("%.1f ms a pod", milli(spent[engines[0].name])/criRounds), ""}), nil
}

// execsInTurn runs a program that does nothing in a container of each, and has our agent
// probe with it, in its turn.
func execsInTurn(ctx context.Context, engines []*contestant) ([]row, error) {
	took, in := map[string][]time.Duration{}, map[string]string{}
	for _, e := range engines {
		_, ctr, err := e.run(ctx)
		if err != nil {
			return nil, err
		}
		in[e.name] = ctr
	}
	ours, command := engines[0], []string{"/bin/busybox", "true"}
	probes := make([]time.Duration, execRounds)
	for i := range execRounds {
		for _, e := range engines {
			begin := time.Now()
			r, err := e.ExecSync(ctx, &rt.ExecSyncRequest{ContainerId: in[e.name], Cmd: command, Timeout: 30})
			took[e.name] = append(took[e.name], time.Since(begin))
			if err != nil || r.GetExitCode() != 0 {
				return nil, fmt.Errorf("%s: exec: exit code %d: %w", e.name, r.GetExitCode(), err)
			}
		}
		var err error
		if probes[i], err = ours.probe(ctx, in[ours.name], command...); err != nil {
			return nil, err
		}
	}
	for _, e := range engines {
		if err := e.clear(ctx); err != nil {
			return nil, err
		}
	}
	rows := inTurn("ExecSync of a program that does nothing", "<= 2 ms", "", engines, took)
	return append(rows, inTurn("a probe by it, the agent's own road", "<= 2 ms", "", engines[:1], map[string][]time.Duration{ours.name: probes})...), nil
}

// inTurn are the rows of what several engines did in turns.
func inTurn(what, aim, ratio string, engines []*contestant, took map[string][]time.Duration) []row {
	var rows []row
	for _, e := range engines {
		d := took[e.name]
		slices.Sort(d)
		rows = append(rows, row{what + ", " + e.name, fmt.Sprintf("p50 %.1f ms, best tenth %.1f ms, p99 %.1f ms",
			milli(d[len(d)/2]), milli(d[len(d)/10]), milli(d[len(d)*99/100])), aim})
		aim = ""
	}
	if len(engines) < 2 {
		return rows
	}
	a, b := took[engines[0].name], took[engines[1].name]
	return append(rows, row{"… sampan's time of " + engines[1].name + "'s", fmt.Sprintf("%.3f by medians, %.3f by best tenths",
		milli(a[len(a)/2])/milli(b[len(b)/2]), milli(a[len(a)/10])/milli(b[len(b)/10])), ratio})
}

// weights are what the engines' processes weigh for each pod, without the
// containers' own.
func weights(ctx context.Context, engines []*contestant) ([]row, error) {
	var rows []row
	aim := "<= 1 MB"
	for _, e := range engines {
		before, _, err := e.weight()
		if err != nil {
			return nil, err
		}
		for range heavyPods {
			if _, _, err := e.run(ctx); err != nil {
				return nil, err
			}
		}
		after, processes, err := e.weight()
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("memory (PSS) for each of %d pods outside their containers, %s", heavyPods, e.name),
			fmt.Sprintf("%.0f kB, in %d processes for all", float64(after-before)/heavyPods/1000, processes), aim})
		aim = ""
		if err := e.clear(ctx); err != nil {
			return nil, err
		}
	}
	return rows, nil
}
