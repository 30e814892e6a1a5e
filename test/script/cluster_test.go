package script

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// downTimeout bounds the end of a cluster, killTimeout that of one process that was
// killed: a machine with other work may take its time over either.
const (
	downTimeout = 2 * time.Minute
	killTimeout = time.Minute
)

// cluster is where a story's sampan keeps its things.
type cluster struct {
	sampan string // the program
	bin    string // other programs, for containers
	data   string // --data-dir
	run    string // its run directory
	cgroup string // the name of its group, in each hierarchy
	t      *testing.T
	other  *other // the story's second machine, if it has one
}

func newCluster(t *testing.T) *cluster {
	bin := os.Getenv(binEnv)
	data := filepath.Join(t.TempDir(), "d")
	// The rule of cli.Settings; importing it would cost each command of a story
	// the start of what it links in.
	sum := sha256.Sum256([]byte(data))
	hash := hex.EncodeToString(sum[:4])
	return &cluster{
		sampan: filepath.Join(bin, "sampan"), bin: bin,
		data: data, run: "/run/sampan-" + hash, cgroup: "sampan-" + hash, t: t,
	}
}

// setup gives a story its variables.
func (c *cluster) setup(env *testscript.Env) error {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		return err
	}
	for k, v := range map[string]string{
		"SAMPAN": c.sampan, "DATA": c.data, "KUBECONFIG": filepath.Join(c.data, "kubeconfig"),
		"HOME": env.WorkDir, "TERM": "dumb", "PATH": env.Getenv("PATH") + ":" + c.bin,
		"NODE_IP": nodeAddress, "EXAMPLES": examples,
	} {
		env.Setenv(k, v)
	}
	return nil
}

// context makes a build context: a Dockerfile and the program it copies.
func (c *cluster) context(dir, program, dockerfile string) error {
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(c.bin, program), filepath.Join(dir, "bin", program)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644)
}

// pid is the process that holds the data directory.
func (c *cluster) pid() (int, error) {
	raw, err := os.ReadFile(filepath.Join(c.data, "sampan.lock"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

// crash kills sampan up so that it can do nothing about it, and returns once it
// has gone.
func (c *cluster) crash() error {
	pid, err := c.pid()
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(killTimeout.Milliseconds()))
		switch {
		case n == 1:
			return nil
		case errors.Is(err, unix.EINTR): // a signal of Go's own scheduler
			continue
		case err == nil:
			err = os.ErrDeadlineExceeded
		}
		return fmt.Errorf("process %d does not end, though killed: %w", pid, err)
	}
}

// end takes the cluster down, whatever has become of it, and fails the test when
// anything is left, or shows what was said when the story failed.
func (c *cluster) end(t *testing.T) {
	if t.Failed() {
		c.explain(t)
	}
	if out, err := c.command("down", "--data-dir", c.data, "--purge"); err != nil {
		t.Errorf("sampan down --purge: %v\n%s", err, out)
	}
	for _, what := range c.left() {
		t.Error("left behind: ", what)
	}
}

// explain logs what the cluster says about itself.
func (c *cluster) explain(t *testing.T) {
	if out, err := c.command("kubectl", "get", "pods,events", "-A", "-o", "wide", "--request-timeout=5s"); err == nil {
		t.Logf("pods and events:\n%s", out)
	}
	if raw, err := os.ReadFile(filepath.Join(c.data, "sampan.log")); err == nil {
		raw = raw[max(0, len(raw)-256<<10):]
		if at := bytes.Index(raw, []byte("\n\ngoroutine ")); at >= 0 { // it broke: the first stack tells where
			raw = raw[:min(len(raw), at+4<<10)]
		}
		t.Logf("the log's end:\n%s", raw[max(0, len(raw)-8<<10):])
	}
}

func (c *cluster) command(args ...string) ([]byte, error) {
	cmd := exec.Command(c.sampan, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.data, "kubeconfig"), "HOME="+filepath.Dir(c.data))
	timer := time.AfterFunc(downTimeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return cmd.CombinedOutput()
}
