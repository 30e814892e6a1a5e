package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

// maxExecOutput is what ExecSync keeps of each stream, in bytes; the CRI names
// the number. The rest is read and dropped, so that the command can go on.
const maxExecOutput = 16 << 20

// exitCannot is the exit code of a command that could not be started.
const exitCannot = 126

// ExecSync runs a command in a container to its end.
func (e *Engine) ExecSync(ctx context.Context, r *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	var stdout, stderr capped
	code, err := e.exec(ctx, r.GetContainerId(), r.GetCmd(), cri.As{}, container.ExecConfig{
		Stdout: &stdout, Stderr: &stderr, Timeout: time.Duration(r.GetTimeout()) * time.Second})
	if errors.Is(err, container.ErrTimeout) {
		return nil, &fault{codes.DeadlineExceeded, fmt.Errorf("command %q timed out after %d s", r.GetCmd(), r.GetTimeout())}
	}
	if err != nil {
		return nil, coded(err)
	}
	return &rt.ExecSyncResponse{Stdout: stdout.bytes(), Stderr: stderr.bytes(), ExitCode: int32(code)}, nil
}

// exec runs a command as the container's own user, in its own environment, but for
// what as says.
func (e *Engine) exec(ctx context.Context, id string, cmd []string, as cri.As, cfg container.ExecConfig) (int, error) {
	if len(cmd) == 0 {
		return -1, invalid("no command to run in container %q", id)
	}
	c, err := e.runningContainer(id)
	if err != nil {
		return -1, err
	}
	env := slices.Clone(c.Env)
	if cfg.TTY && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		env = append(env, "TERM=xterm")
	}
	cfg.Process = &specs.Process{
		Terminal: cfg.TTY, Args: cmd, Env: env, Cwd: c.Cwd,
		User:            specs.User{UID: c.User.UID, GID: c.User.GID, AdditionalGids: c.User.Groups},
		NoNewPrivileges: c.Config.GetLinux().GetSecurityContext().GetNoNewPrivs(),
	}
	if s := e.records.sandbox(c.SandboxID); s != nil {
		if cfg.Process.Rlimits, err = spec.Rlimits(s.Config); err != nil {
			return exitCannot, err
		}
	}
	if !as.Zero() {
		if err := e.own(c, cfg.Process, as); err != nil {
			return exitCannot, err
		}
	}
	return e.runtime.Exec(ctx, c.ID, cfg)
}

// capped keeps the beginning of what is written to it.
type capped struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*capped)(nil)

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = append(c.buf, p[:min(len(p), maxExecOutput-len(c.buf))]...)
	return len(p), nil
}

func (c *capped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf
}
