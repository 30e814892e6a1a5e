package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

// uplinkEnv says that this process began in an empty network namespace, and a
// mount namespace of its own.
const uplinkEnv = "SAMPAN_CONFORMANCE_UPLINK"

// The network of the namespace is one kept for documentation (RFC 5737).
const (
	nodeAddress = "198.51.100.10"
	gateway     = "198.51.100.1"
)

// upTimeout bounds the start of a cluster, downTimeout its end.
const (
	upTimeout   = 2 * time.Minute
	downTimeout = 2 * time.Minute
)

// start brings the cluster up and loads the images.
func (c *config) start(ctx context.Context) error {
	alone := os.Getenv(uplinkEnv) != ""
	if alone {
		if err := errors.Join(isolate(), uplink()); err != nil {
			return fmt.Errorf("namespaces of the cluster: %w", err)
		}
	}
	if err := os.MkdirAll(c.report, 0o755); err != nil {
		return err
	}
	if c.keep && c.answers(ctx) {
		return nil
	}
	begin := time.Now()
	if err := c.command(ctx, upTimeout, "load", "--data-dir", c.data, "-i", c.images); err != nil {
		return err
	}
	if alone {
		if err := c.serveImages(ctx); err != nil {
			return fmt.Errorf("registry of the images: %w", err)
		}
	}
	log.Printf("images are there after %s", time.Since(begin).Round(time.Millisecond))
	if err := c.command(ctx, upTimeout, "up", "--detach", "--data-dir", c.data); err != nil || !alone {
		return err
	}
	return c.second(ctx)
}

// answers says whether a cluster runs already.
func (c *config) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, c.kubectl, "--kubeconfig", c.kubeconfig(), "get", "--raw", "/readyz").Run() == nil
}

func (c *config) kubeconfig() string { return filepath.Join(c.data, "kubeconfig") }

// down ends the cluster and removes what it had; its log is kept.
func (c *config) down() error {
	if c.keep {
		return nil
	}
	logged, err := os.ReadFile(filepath.Join(c.data, "sampan.log"))
	if err == nil {
		err = os.WriteFile(filepath.Join(c.report, "sampan.log"), logged, 0o644)
	}
	return errors.Join(err, c.leave(), c.command(context.Background(), downTimeout, "down", "--purge", "--data-dir", c.data))
}

// command runs a verb of sampan; its output is shown when it fails.
func (c *config) command(ctx context.Context, limit time.Duration, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := c.output(ctx, args...)
	return err
}

// output is what a verb of sampan prints.
func (c *config) output(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.sampan, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sampan %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// uplink gives this namespace what any machine has: loopback, an address, and a
// default route, which here leads nowhere.
func uplink() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	up := &netlink.Veth{LinkAttrs: attrs, PeerName: "up1"}
	if err := netlink.LinkAdd(up); err != nil {
		return err
	}
	peer, err := netlink.LinkByName("up1")
	if err != nil {
		return err
	}
	address := &net.IPNet{IP: net.ParseIP(nodeAddress).To4(), Mask: net.CIDRMask(24, 32)}
	return errors.Join(
		netlink.LinkSetUp(lo), netlink.LinkSetUp(up), netlink.LinkSetUp(peer),
		netlink.AddrAdd(up, &netlink.Addr{IPNet: address}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gateway)}),
	)
}
