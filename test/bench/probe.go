package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/probe"
	"github.com/sampan-dev/sampan/node/cri"
)

// asProbe is the first word of a command that is to be a probe of the agent's.
const asProbe = "as-probe"

// prober is an engine of ours with the agent's road to it, which is in one process: an
// ExecSync of what asProbe begins is made a probe, and answers with the nanoseconds that
// it took.
type prober struct {
	cri.Engine
	doer probe.Doer
}

func newProber(e cri.Engine) *prober {
	return &prober{e, probe.Doer{Engine: cri.Observe(e, func(string, time.Duration, error) {})}}
}

// ExecSync implements cri.Engine.
func (p *prober) ExecSync(ctx context.Context, r *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	if r.GetCmd()[0] != asProbe {
		return p.Engine.ExecSync(ctx, r)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.GetTimeout())*time.Second)
	defer cancel()
	begin := time.Now()
	result, said := p.doer.Probe(ctx, &corev1.Pod{}, &actual.Container{ID: r.GetContainerId()},
		&corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: r.GetCmd()[1:]}}})
	took := time.Since(begin)
	if result != probe.Success {
		return nil, fmt.Errorf("probe: %v: %s", result, said)
	}
	return &rt.ExecSyncResponse{Stdout: strconv.AppendInt(nil, int64(took), 10)}, nil
}

// probe has the engine make a probe of a command, and gives the time that it took there.
func (c *contestant) probe(ctx context.Context, ctr string, command ...string) (time.Duration, error) {
	r, err := c.ExecSync(ctx, &rt.ExecSyncRequest{ContainerId: ctr, Cmd: append([]string{asProbe}, command...), Timeout: 30})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	took, err := strconv.ParseInt(string(r.GetStdout()), 10, 64)
	return time.Duration(took), err
}
