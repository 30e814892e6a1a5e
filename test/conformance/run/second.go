package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// secondAddress is the address of the second node.
const secondAddress = "198.51.100.11"

// second joins another node, in a network namespace at the far end of the uplink:
// some specs want two.
func (c *config) second(ctx context.Context) error {
	if err := c.command(ctx, upTimeout, "load", "--data-dir", c.secondData(), "-i", c.images); err != nil {
		return err
	}
	printed, err := c.output(ctx, "token", "create", "--data-dir", c.data)
	if err != nil {
		return err
	}
	join := strings.Fields(printed)
	if len(join) < 3 {
		return fmt.Errorf("sampan token create printed %q", printed)
	}
	if c.other, err = faraway(); err != nil {
		return fmt.Errorf("network of the second node: %w", err)
	}
	return within(c.other, func() error {
		return c.command(ctx, upTimeout, append(join[1:], "--detach", "--node-name", "second", "--data-dir", c.secondData())...)
	})
}

// leave takes the second node down.
func (c *config) leave() error {
	if !c.other.IsOpen() {
		return nil
	}
	return within(c.other, func() error {
		return c.command(context.Background(), downTimeout, "down", "--purge", "--data-dir", c.secondData())
	})
}

func (c *config) secondData() string { return c.data + "-second" }

// faraway makes a namespace with the far end of the uplink.
func faraway() (netns.NsHandle, error) {
	peer, err := netlink.LinkByName("up1")
	if err != nil {
		return netns.None(), err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return netns.None(), err
	}
	defer here.Close()
	made, err := netns.New()
	if err != nil {
		return netns.None(), err
	}
	if err := errors.Join(netns.Set(here), netlink.LinkSetNsFd(peer, int(made))); err != nil {
		return made, err
	}
	return made, within(made, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		up, err := netlink.LinkByName("up1")
		if err != nil {
			return err
		}
		address := &net.IPNet{IP: net.ParseIP(secondAddress).To4(), Mask: net.CIDRMask(24, 32)}
		return errors.Join(
			netlink.LinkSetUp(lo), netlink.LinkSetUp(up), netlink.AddrAdd(up, &netlink.Addr{IPNet: address}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gateway)}),
		)
	})
}

// within does something in a namespace: what it starts, starts there.
func within(ns netns.NsHandle, do func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = do()
	if back := netns.Set(here); back != nil {
		return errors.Join(err, back) // the thread stays locked
	}
	runtime.UnlockOSThread()
	return err
}
