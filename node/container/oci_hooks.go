package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

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
	state, err := json.Marshal(o.state(rec))
	if err != nil {
		return err
	}
	for _, h := range hooks {
		if err := runHook(ctx, h, state); err != nil {
			err = fmt.Errorf("%s hook %q: %w", moment, h.Path, err)
			if must {
				return err
			}
			o.runtime().log.Warn("hook failed", "id", rec.ID, "err", err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h specs.Hook, state []byte) error {
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
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
