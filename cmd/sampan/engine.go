package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/internal/pace"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine"
)

// engineAlone serves our own engine to whoever has the socket, such as upstream's
// kubelet, until ctx ends.
func engineAlone(ctx context.Context, o cli.EngineOptions, report cli.Report) error {
	defer pace.Keep()()
	if err := ownedByCluster(o.Settings); err != nil {
		return err
	}
	c, err := prepare(cli.UpOptions{Settings: o.Settings, RuntimeHandlers: o.RuntimeHandlers, SELinux: o.SELinux, Verbose: o.Verbose, NodeName: "-"}, report)
	if err != nil {
		return err
	}
	everywhere, err := netip.ParsePrefix(o.ClusterCIDR)
	if err != nil {
		return fmt.Errorf("--cluster-cidr %q: want a range such as 10.42.0.0/16", o.ClusterCIDR)
	}
	parts, err := openParts(partsConfig{Settings: c.Settings, log: c.log, direct: []netip.Prefix{everywhere}, forwarding: true})
	if err != nil {
		return errors.Join(err, parts.close())
	}
	parts.cfg.Runtimes, parts.cfg.NoSELinux = c.RuntimeHandlers, !c.SELinux
	own, err := engine.New(parts.cfg)
	if err != nil {
		return errors.Join(err, parts.close())
	}
	e := started{Engine: own, closers: append(parts.closers, own.Close)}
	return errors.Join(c.offer(ctx, e, o), e.close())
}

// ownedByCluster refuses the data directory of a cluster: its own agent would remove
// the pods of another's.
func ownedByCluster(s cli.Settings) error {
	for _, sign := range []string{"etcd", "pods", "pki"} {
		if _, err := os.Stat(filepath.Join(s.DataDir, sign)); err == nil {
			return fmt.Errorf("%q is a cluster's, which serves its engine itself: choose another --data-dir", s.DataDir)
		}
	}
	return nil
}

// offer serves the engine and reports when it can be called.
func (c *cluster) offer(ctx context.Context, e started, o cli.EngineOptions) error {
	if err := firstRange(ctx, e, o.PodCIDR); err != nil {
		return err
	}
	l, err := cri.Listen(ctx, o.Socket)
	if err != nil {
		return err
	}
	c.report("container engine on " + o.Socket)
	c.report(cli.Ready)
	return cri.ServeOn(ctx, l, e.Engine)
}

// firstRange gives pods their range as long as nobody else has.
func firstRange(ctx context.Context, e cri.Engine, pods string) error {
	if pods == "" {
		return nil
	}
	st, err := e.Status(ctx, &rt.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range st.GetStatus().GetConditions() {
		if condition.GetType() == rt.NetworkReady && condition.GetStatus() {
			return nil
		}
	}
	_, err = e.UpdateRuntimeConfig(ctx, &rt.UpdateRuntimeConfigRequest{
		RuntimeConfig: &rt.RuntimeConfig{NetworkConfig: &rt.NetworkConfig{PodCidr: pods}},
	})
	return err
}
