package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"
)

// registryAddress is where, in the namespace, what the specs think to be
// registry.k8s.io answers: some ask it again for an image that is there.
const registryAddress = nodeAddress + ":5000"

// registryName is the registry whose place it takes.
const registryName = "registry.k8s.io"

// serveImages puts the images into a registry and has Sampan find it. It needs
// the mount namespace of its own that elsewhere made: hosts.toml is written into
// a layer above /etc that only the cluster sees.
func (c *config) serveImages(ctx context.Context) error {
	if err := hosts(filepath.Join(c.report, "etc")); err != nil {
		return fmt.Errorf("name the registry: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", registryAddress)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))} //nolint:gosec // alone in its namespace
	go func() { _ = server.Serve(listener) }()                                                 // for as long as this program runs
	loaded, err := c.output(ctx, "images", "--data-dir", c.data)
	if err != nil {
		return err
	}
	for line := range strings.Lines(loaded) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], registryName+"/") {
			continue
		}
		if err := c.command(ctx, upTimeout, "push", "--data-dir", c.data, fields[0]+":"+fields[1]); err != nil {
			return err
		}
	}
	return nil
}

// hosts covers /etc with a writable layer, mounted in a directory of ours, and
// writes hosts.toml there.
func hosts(layer string) error {
	if err := os.MkdirAll(layer, 0o755); err != nil {
		return err
	}
	// Nothing of this shall be seen, nor left, outside.
	if err := unix.Mount("tmpfs", layer, "tmpfs", 0, ""); err != nil {
		return err
	}
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	dir := filepath.Join("/etc/sampan/certs.d", registryName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte("server = \"http://"+registryAddress+"\"\n"), 0o644)
}

// isolate keeps the mounts of this process's namespace from spreading to the
// outside, and has them spread inside, as on a machine of its own.
func isolate() error {
	for _, how := range []uintptr{unix.MS_SLAVE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", how|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}
