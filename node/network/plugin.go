package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Limits of one call of a plugin.
const (
	// maxPluginOutput bounds what a plugin prints, in bytes: a result has a few
	// thousand.
	maxPluginOutput = 1 << 20
	// maxPluginWords bounds what of a plugin's complaints is told, in bytes.
	maxPluginWords = 1 << 10
	// pluginLingers is how long a plugin that was killed, or has ended, may leave
	// somebody behind who holds its output.
	pluginLingers = 2 * time.Second
	// pluginBusy is how often a plugin that is just being written is tried, with a
	// pause of pluginPause between.
	pluginBusy  = 5
	pluginPause = time.Second
)

var errTooTalkative = fmt.Errorf("it printed more than %d bytes", maxPluginOutput)

// plugins runs CNI plugins so that none can hold or fill this process: it is killed
// with all that it has started when its time is over, and it may print only so much.
type plugins struct{ version.PluginDecoder }

var _ invoke.Exec = (*plugins)(nil)

// FindInPath implements invoke.Exec.
func (*plugins) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements invoke.Exec: it returns what the plugin printed. An error is
// the plugin's own, when it tells one in the specification's words.
func (*plugins) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	for try := 1; ; try++ {
		out, err := call(ctx, path, stdin, env)
		if !errors.Is(err, syscall.ETXTBSY) || try == pluginBusy {
			return out, err
		}
		select { // its installer is at work
		case <-time.After(pluginPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("plugin %q: %w", path, context.Cause(ctx))
		}
	}
}

func call(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	var out limited
	var words tail
	c := exec.CommandContext(ctx, path)
	c.Env, c.Stdin, c.Stdout, c.Stderr = env, bytes.NewReader(stdin), &out, &words
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = pluginLingers
	err := c.Run()
	if c.Process != nil && err != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // whoever it left behind
	}
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return out.b, nil // it has ended, whoever still holds its output
	case out.full:
		return nil, fmt.Errorf("plugin %q: %w", path, errTooTalkative)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("plugin %q did not end: %w", path, context.Cause(ctx))
	}
	return nil, complaint(path, err, out.b, words.b)
}

// complaint is what a plugin that failed says of it: as JSON on stdout, or on stderr.
func complaint(path string, err error, out, words []byte) error {
	own := types.Error{}
	if json.Unmarshal(out, &own) == nil && own.Msg != "" {
		return &own
	}
	said := strings.TrimSpace(strings.ToValidUTF8(string(words), "?"))
	if said == "" {
		said = strings.TrimSpace(strings.ToValidUTF8(string(out[:min(len(out), maxPluginWords)]), "?"))
	}
	if said == "" {
		return fmt.Errorf("plugin %q: %w", path, err)
	}
	return fmt.Errorf("plugin %q: %w: %q", path, err, said)
}

// limited keeps what is written to it, up to maxPluginOutput; more is an error, by
// which whoever writes loses its reader. It is nothing but a writer: a buffer that
// reads for itself would pass the limit by.
type limited struct {
	b    []byte
	full bool
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > maxPluginOutput {
		l.full = true
		return 0, errTooTalkative
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// tail keeps the last of what is written to it.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - maxPluginWords; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}
