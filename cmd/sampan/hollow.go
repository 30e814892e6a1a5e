package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/internal/profiles"
	"github.com/sampan-dev/sampan/node/hollow"
)

// hollowNodes joins nodes without containers.
func hollowNodes(ctx context.Context, o cli.HollowOptions) error {
	base, err := clientcmd.BuildConfigFromFlags(o.Server, o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig %q: %w", o.Kubeconfig, err)
	}
	cpu, err := resource.ParseQuantity(o.CPU)
	if err != nil {
		return fmt.Errorf("--cpu %q: %w", o.CPU, err)
	}
	memory, err := resource.ParseQuantity(o.Memory)
	if err != nil {
		return fmt.Errorf("--memory %q: %w", o.Memory, err)
	}
	cfg := hollow.Config{
		Nodes: o.Nodes, First: o.First, Prefix: o.Prefix, CPU: cpu, Memory: memory, Pods: o.Pods,
		Transport: func(node string) (client.Transport, error) {
			own := rest.CopyConfig(base)
			own.DisableCompression = true // each watch would have a decompressor of 44 KiB
			own.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + node, Groups: []string{"system:nodes"}}
			return client.NewHTTP(own)
		},
	}
	if o.Verbose {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.Tainted {
		cfg.Taint = &corev1.Taint{Key: hollow.Label, Value: "true", Effect: corev1.TaintEffectNoSchedule}
	}
	begun := 0
	cfg.Started = func(string) {
		if begun++; begun == o.Nodes {
			fmt.Fprintf(o.Out, "%d hollow nodes have begun\n", begun)
		}
	}
	if o.Profiles != "" {
		stop, err := showProfiles(ctx, o.Profiles)
		if err != nil {
			return err
		}
		defer stop()
	}
	defer pace.Keep()()
	return hollow.Run(ctx, cfg)
}

// profilesTimeout bounds how long a question for profiles may take to arrive.
const profilesTimeout = 10 * time.Second

// showProfiles serves profiles until stop is called.
func showProfiles(ctx context.Context, address string) (stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("show profiles: %w", err)
	}
	srv := &http.Server{Handler: profiles.Handler(), ReadHeaderTimeout: profilesTimeout}
	go func() { _ = srv.Serve(listener) }() // ends with Close
	return func() { _ = srv.Close() }, nil
}
