package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// planHooks are the hooks that the first process runs itself; nil when there are
// no hooks before start at all.
func planHooks(h *specs.Hooks) *plan.Hooks {
	if h == nil || len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer) == 0 { //nolint:staticcheck // prestart is deprecated, and used
		return nil
	}
	return &plan.Hooks{CreateContainer: plannedHooks(h.CreateContainer), StartContainer: plannedHooks(h.StartContainer)}
}

func plannedHooks(in []specs.Hook) []plan.Hook {
	out := make([]plan.Hook, len(in))
	for i, h := range in {
		out[i] = plan.Hook{Path: h.Path, Args: h.Args, Env: h.Env}
		if h.Timeout != nil {
			out[i].Timeout = *h.Timeout
		}
	}
	return out
}

// creatorHooks runs what belongs between the making of the namespaces and the
// container's own hooks, for which it returns the state.
func (o *OCI) creatorHooks(ctx context.Context, rec *ociRecord, pid int, devices map[string]specs.LinuxNetDevice) ([]byte, error) {
	if err := moveNetDevices(fmt.Sprintf("/proc/%d/ns/net", pid), devices); err != nil {
		return nil, err
	}
	if err := o.runHooks(ctx, rec, "prestart", true); err != nil {
		return nil, err
	}
	if err := o.runHooks(ctx, rec, "createRuntime", true); err != nil {
		return nil, err
	}
	s := o.state(rec)
	s.Status = specs.StateCreating
	return json.Marshal(s)
}

// runHooks runs the hooks of one moment with the state on their stdin. One that
// fails is an error where the specification says so, and a log line elsewhere.
func (o *OCI) runHooks(ctx context.Context, rec *ociRecord, moment string, must bool) error {
	if rec.Hooks == nil {
		return nil
	}
	hooks := map[string][]specs.Hook{
		"prestart": rec.Hooks.Prestart, "createRuntime": rec.Hooks.CreateRuntime, //nolint:staticcheck // prestart is deprecated, and used
		"poststart": rec.Hooks.Poststart, "poststop": rec.Hooks.Poststop,
	}[moment]
	if len(hooks) == 0 {
		return nil
	}
	now := o.state(rec)
	if must && moment != "poststart" {
		now.Status = specs.StateCreating
	}
	state, err := json.Marshal(now)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := runHook(ctx, h, rec.Bundle, state); err != nil {
			err = fmt.Errorf("error running %s hook #%d: %q: %w", moment, i, h.Path, err) // as runc's callers know it
			if must {
				return err
			}
			o.runtime().log.Warn("hook failed", "id", rec.ID, "err", err)
		}
	}
	return nil
}

// runHook runs a hook of the creator's, in the bundle as runc's and crun's begin, unless it
// has gone meanwhile.
func runHook(ctx context.Context, h specs.Hook, bundle string, state []byte) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	c := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		c.Args = h.Args
	}
	c.Env, c.Stdin = h.Env, bytes.NewReader(state)
	if info, err := os.Stat(bundle); err == nil && info.IsDir() {
		c.Dir = bundle
	}
	out, err := c.CombinedOutput()
	if out = bytes.TrimSpace(out); err != nil && len(out) > 0 {
		return fmt.Errorf("%w: %s", err, out)
	}
	return err
}
