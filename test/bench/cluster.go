package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/client"
)

// binary is the program under test: what make builds, or what SAMPAN names.
var binary = cmp.Or(os.Getenv("SAMPAN"), "bin/sampan")

// loopback brings up lo, which a new namespace has down.
func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// cluster is a running sampan with a directory of its own.
type cluster struct {
	dir  string
	args []string // of sampan up, besides
	// inRun is --run-dir, where it was given.
	inRun string
	// empty is the memory (PSS) in bytes that it had before it was filled.
	empty int64
	cmd   *exec.Cmd
	took  map[string]time.Duration // step → since start, as sampan itself reports
	cfg   *rest.Config
	client.Transport
}

// up starts a cluster, with further flags, and returns when it is ready.
func up(ctx context.Context, args ...string) (*cluster, error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, args: args, took: map[string]time.Duration{}}
	return c, c.start(ctx)
}

// start starts sampan on the cluster's directory and returns when it is ready.
func (c *cluster) start(ctx context.Context) error {
	c.cmd = exec.CommandContext(ctx, binary, append([]string{"up", "--data-dir", c.dir}, c.args...)...)
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("%w: build it first with make", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fields := strings.SplitN(strings.TrimSpace(lines.Text()), " ms  ", 2)
		if len(fields) != 2 {
			continue
		}
		ms, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		step, _, _ := strings.Cut(fields[1], " on ")
		c.took[step] = time.Duration(ms) * time.Millisecond
		if step == "ready" {
			go drain(lines)
			return c.connect()
		}
	}
	return fmt.Errorf("sampan up ended before it was ready: %w", c.cmd.Wait())
}

func drain(lines *bufio.Scanner) {
	for lines.Scan() {
	}
}

// connect makes a client over HTTPS, as any other program has it.
func (c *cluster) connect() error {
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return err
	}
	cfg.QPS, cfg.Burst = -1, -1
	c.cfg = cfg
	c.Transport, err = client.NewHTTP(cfg)
	return err
}

// run runs a sampan command on the cluster's directory.
func (c *cluster) run(ctx context.Context, args ...string) error {
	argv := []string{args[0], "--data-dir", c.dir}
	if c.inRun != "" {
		argv = append(argv, "--run-dir", c.inRun)
	}
	cmd := exec.CommandContext(ctx, binary, append(argv, args[1:]...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("sampan %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// down removes the cluster and all that it has left.
func (c *cluster) down(ctx context.Context) error {
	err := c.run(context.WithoutCancel(ctx), "down", "--purge")
	_ = c.cmd.Wait() // it was told to stop
	return err
}
