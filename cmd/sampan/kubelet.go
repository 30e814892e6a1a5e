package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// verboseFrom is the verbosity of klog from which on everything is told.
const verboseFrom = 4

// readKubelet reads the node's KubeletConfiguration, if there is one, makes the log that
// it asks for, and takes the engine that it names. What is wrong with it is said before
// anything starts.
func (c *cluster) readKubelet() error {
	var loaded settings.Loaded
	if c.KubeletConfig != "" || c.KubeletConfigDir != "" {
		var err error
		if loaded, err = settings.Load(c.KubeletConfig, c.KubeletConfigDir); err != nil {
			return err
		}
		c.kubelet, c.tuneKernel = &loaded.Kubelet, loaded.TunesKernel
	}
	c.log = newLog(os.Stderr, c.Verbose, c.kubelet)
	slog.SetDefault(c.log) // libraries that take no logger
	for _, w := range loaded.Warnings {
		c.log.Warn("kubelet configuration: " + w)
	}
	c.ContainerRuntime = engineOf(c.UpOptions, c.kubelet)
	return nil
}

// newLog writes lines of text or JSON.
func newLog(to io.Writer, verbose bool, k *settings.Kubelet) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelWarn}
	if verbose || k != nil && k.Logging.Verbosity >= verboseFrom {
		options.Level = slog.LevelDebug
	}
	if k != nil && k.Logging.Format == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// engineOf is the socket of another engine, "" for our own: the flag's, or else what the
// configuration says.
func engineOf(o cli.UpOptions, k *settings.Kubelet) string {
	if o.ContainerRuntime != "" || k == nil || k.ContainerRuntimeEndpoint == ownSocket(o.Settings) {
		return o.ContainerRuntime
	}
	return k.ContainerRuntimeEndpoint
}

// ownSocket is where our own engine can be had.
func ownSocket(s cli.Settings) string { return "unix://" + filepath.Join(s.RunDir, "cri.sock") }
