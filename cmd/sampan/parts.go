package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

// partsConfig says where the engine's parts are.
type partsConfig struct {
	cli.Settings
	log *slog.Logger
	// local are service addresses that the node answers itself.
	local []netip.Addr
	// direct are the addresses of all nodes' pods.
	direct []netip.Prefix
	// forwarding lets pods reach the world, which is a setting of the host.
	forwarding bool
}

// parts are what the engine is made of.
type parts struct {
	cfg     engine.Config
	closers []func() error
}

func (p parts) close() error { return started{closers: p.closers}.close() }

// openParts opens the container runtime, the image store and the pod network.
func openParts(c partsConfig) (p parts, err error) {
	runtime, err := container.Open(container.Config{
		Root: filepath.Join(c.DataDir, "containers"), Run: filepath.Join(c.RunDir, "c"),
		Keeper: container.Sealed(keeper), Cgroup: c.Cgroup(), Log: c.log,
	})
	if err != nil {
		return p, fmt.Errorf("container runtime: %w", err)
	}
	p.closers = append(p.closers, runtime.Leave)
	images, err := image.Open(image.Config{Root: c.ImageDir(), Log: c.log})
	if err != nil {
		return p, err
	}
	pods, err := network.Open(network.Config{
		State: filepath.Join(c.DataDir, "network"), Local: c.local, Direct: c.direct, Forwarding: c.forwarding,
		CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"}, Log: c.log,
	})
	if err != nil {
		return p, fmt.Errorf("pod network: %w", err)
	}
	p.closers = append(p.closers, pods.Close)
	p.cfg = engine.Config{
		Runtime: runtime, Images: images, Network: pods,
		Root: filepath.Join(c.DataDir, "engine"), Run: filepath.Join(c.RunDir, "e"),
		Cgroup: c.Cgroup() + "/pods", Version: version, Log: c.log,
	}
	return p, nil
}
