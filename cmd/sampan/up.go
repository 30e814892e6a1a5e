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
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/node/agent/settings"
	"github.com/sampan-dev/sampan/node/segment"
)

// cluster is one sampan up: what its parts share.
type cluster struct {
	cli.UpOptions
	log *slog.Logger
	// kubelet is the node's KubeletConfiguration; nil when there is none.
	kubelet *settings.Kubelet
	// tuneKernel: that configuration asks for the kubelet's settings of the kernel.
	tuneKernel bool

	timeline  *timeline.Recorder
	authority *pki.Authority
	report    cli.Report

	// everywhere are the addresses of all nodes' pods, pods those of this node's
	// own. With given, the latter are what the cluster gives to the node.
	everywhere netip.Prefix
	pods       netip.Prefix
	given      bool
	services   netip.Prefix
	// dns is the address of the cluster's DNS service: the tenth of the range,
	// as upstream's installers have it.
	dns netip.Addr
	// address is the node's own.
	address netip.Addr
	lone    lone
	origin  lateOrigin
	// segments keeps the networks apart that have names.
	segments *segment.Segments
	// embedded is the store in this process; nil with an etcd elsewhere.
	embedded *etcd.Server
}

// up runs a whole cluster until ctx ends: the control plane and, beside it as
// soon as each piece can be had, the node.
func up(ctx context.Context, o cli.UpOptions, report cli.Report) error {
	defer pace.Keep()()
	c, err := prepare(o, report)
	if err != nil {
		return err
	}
	if err := c.found(); err != nil {
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
	ctx = followClock(ctx, g, c.log)
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
	parts, err := c.partsOf(ctx, g, control, e)
	if err != nil {
		return err
	}
	c.shareOrigin(e, images)
	if err := c.startNode(ctx, g, parts); err != nil {
		return err
	}
	if err := c.startRegistry(ctx, g, images, parts); err != nil {
		return err
	}
	g.Go(func() error { return c.announceDNS(ctx, control.admin()) })
	g.Go(func() error { return c.announceFacts(ctx, control.admin()) })
	if err := c.awaitNode(ctx, control.admin()); err != nil {
		return err
	}
	report(cli.Ready)
	return g.Wait()
}

// prepare makes the directories and finds the node's name.
func prepare(o cli.UpOptions, report cli.Report) (*cluster, error) {
	c := &cluster{UpOptions: o, report: report, timeline: timeline.New()}
	if err := c.readKubelet(); err != nil {
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
	return c, nil
}

// found reads what a cluster of our own is given, and opens its keys.
func (c *cluster) found() (err error) {
	if _, err := os.Stat(membershipFile(c.Settings)); err == nil {
		return errors.New("this machine is a node of another's cluster: sampan join starts it again, sampan down --purge lets it leave")
	}
	if err := c.ranges(); err != nil {
		return err
	}
	c.authority, err = pki.Open(filepath.Join(c.DataDir, "pki"), time.Now)
	return err
}

// ranges reads the address ranges and chooses the addresses in them.
func (c *cluster) ranges() (err error) {
	if c.pods, err = netip.ParsePrefix(c.PodCIDR); err != nil {
		return fmt.Errorf("--pod-cidr %q: want a range such as 10.42.0.0/24", c.PodCIDR)
	}
	if c.everywhere, err = netip.ParsePrefix(c.ClusterCIDR); err != nil {
		return fmt.Errorf("--cluster-cidr %q: want a range such as 10.42.0.0/16", c.ClusterCIDR)
	}
	if c.services, err = netip.ParsePrefix(c.ServiceCIDR); err != nil {
		return fmt.Errorf("--service-cidr %q: want a range such as 10.96.0.0/16", c.ServiceCIDR)
	}
	if c.pods.Overlaps(c.services) {
		return fmt.Errorf("--pod-cidr %s and --service-cidr %s overlap", c.pods, c.services)
	}
	if c.everywhere.Overlaps(c.services) {
		return fmt.Errorf("--cluster-cidr %s and --service-cidr %s overlap", c.everywhere, c.services)
	}
	// Servers that share an etcd share out the nodes' ranges too.
	c.given = len(c.EtcdServers) > 0
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
