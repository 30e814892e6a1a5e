package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// cluster is one sampan up: what its parts share.
type cluster struct {
	cli.UpOptions
	log       *slog.Logger
	timeline  *timeline.Recorder
	authority *pki.Authority
	report    cli.Report

	pods     netip.Prefix
	services netip.Prefix
	// dns is the address of the cluster's DNS service: the tenth of the range,
	// as upstream's installers have it.
	dns netip.Addr
	// address is the node's own.
	address netip.Addr
}

// up runs a whole cluster until ctx ends: the control plane and, beside it as
// soon as each piece can be had, the node.
func up(ctx context.Context, o cli.UpOptions, report cli.Report) error {
	defer pace.Keep()()
	c, err := prepare(o, report)
	if err != nil {
		return err
	}
	// First what most likely fails, before anything has been made.
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", c.Port))
	if err != nil {
		return fmt.Errorf("listen for the API on port %d: %w; if it is in use, choose another with --port", c.Port, err)
	}
	images, err := c.openRegistry()
	if err != nil {
		listener.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	// What runs ends before what it stands on is closed, however we leave.
	stop := func() {
		cancel()
		_ = g.Wait() // its error is returned by whoever leaves
	}
	defer stop()
	// The container engine wants nothing of the API server: both start at once.
	engine := make(chan started, 1)
	go func() { engine <- c.startEngine(ctx) }()
	control, err := c.startControl(ctx, g, listener)
	if err != nil {
		return errors.Join(err, (<-engine).close())
	}
	defer control.close()
	defer stop()
	e := <-engine
	if e.err != nil {
		return e.err
	}
	defer func() { _ = e.close() }()
	defer stop()
	report("container engine")
	parts := nodeParts{control: control, engine: e}
	if err := c.startNode(ctx, g, parts); err != nil {
		return err
	}
	if err := c.startRegistry(ctx, g, images, parts); err != nil {
		return err
	}
	if err := c.awaitNode(ctx, control); err != nil {
		return err
	}
	report(cli.Ready)
	return g.Wait()
}

// prepare checks the options and makes directories and keys.
func prepare(o cli.UpOptions, report cli.Report) (*cluster, error) {
	level := slog.LevelWarn
	if o.Verbose {
		level = slog.LevelDebug
	}
	c := &cluster{
		UpOptions: o, report: report, timeline: timeline.New(),
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
	slog.SetDefault(c.log) // libraries that take no logger
	if err := c.ranges(); err != nil {
		return nil, err
	}
	if c.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("this host's name: %w; choose one with --node-name", err)
		}
		c.NodeName = name
	}
	for _, dir := range []string{o.DataDir, o.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	var err error
	if c.authority, err = pki.Open(filepath.Join(o.DataDir, "pki"), time.Now); err != nil {
		return nil, err
	}
	return c, nil
}

// ranges reads the address ranges and chooses the addresses in them.
func (c *cluster) ranges() (err error) {
	if c.pods, err = netip.ParsePrefix(c.PodCIDR); err != nil {
		return fmt.Errorf("--pod-cidr %q: want a range such as 10.42.0.0/24", c.PodCIDR)
	}
	if c.services, err = netip.ParsePrefix(c.ServiceCIDR); err != nil {
		return fmt.Errorf("--service-cidr %q: want a range such as 10.96.0.0/16", c.ServiceCIDR)
	}
	if c.pods.Overlaps(c.services) {
		return fmt.Errorf("--pod-cidr %s and --service-cidr %s overlap", c.pods, c.services)
	}
	c.dns = c.services.Masked().Addr()
	for range 10 {
		c.dns = c.dns.Next()
	}
	if !c.services.Contains(c.dns) {
		return fmt.Errorf("--service-cidr %s is too small: it needs 16 addresses at least", c.services)
	}
	c.address = hostAddress(c.pods)
	return nil
}
