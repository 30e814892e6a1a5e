package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// EngineOptions are a container engine without a cluster.
type EngineOptions struct {
	Settings
	// Socket is where the CRI is served: an absolute path.
	Socket string
	// ClusterCIDR is the range of all nodes' pods, which reach each other under
	// their own addresses. PodCIDR is that of the pods here, until a kubelet says
	// which it is; "" waits for that.
	ClusterCIDR, PodCIDR string
	// RuntimeHandlers are as in UpOptions.
	RuntimeHandlers map[string]string
	// SELinux is as in UpOptions.
	SELinux bool
	// Verbose logs everything.
	Verbose bool
}

func engineCommand(p Program, s *Settings) *cobra.Command {
	o := EngineOptions{}
	background := detached{}
	cmd := &cobra.Command{
		Use: "engine", Short: "Serve the container engine alone, to a kubelet or crictl", Args: cobra.NoArgs,
		Long: `Serve the container engine on a socket, without a cluster, until Ctrl-C or with
--detach in the background: for upstream's kubelet, crictl, or whoever else speaks the
Container Runtime Interface. Containers keep running while it restarts; sampan down
stops all of them and leaves nothing behind.

A cluster and an engine alone want data directories of their own.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("containers need namespaces, mounts and cgroups, which only root may make: run sudo sampan engine")
			}
			o.Settings = *s
			if o.Socket == "" {
				o.Socket = filepath.Join(s.RunDir, "cri.sock")
			}
			var err error
			if o.Socket, err = filepath.Abs(strings.TrimPrefix(o.Socket, "unix://")); err != nil {
				return err
			}
			if background.on {
				return background.start(cmd, o.Settings)
			}
			hint := "Use it: kubelet --container-runtime-endpoint=unix://" + o.Socket
			return inForeground(cmd, o.Settings, hint, func(r Report) error { return p.Engine(cmd.Context(), o, r) })
		},
	}
	flags := cmd.Flags()
	background.flags(cmd, "return once the engine answers and leave it running")
	flags.StringVar(&o.Socket, "socket", "", "where to serve (default: cri.sock in --run-dir)")
	flags.StringVar(&o.ClusterCIDR, "cluster-cidr", "10.42.0.0/16", "addresses of all nodes' pods")
	flags.StringVar(&o.PodCIDR, "pod-cidr", "", "addresses of the pods here, until a kubelet tells (default: none)")
	flags.StringToStringVar(&o.RuntimeHandlers, "runtime-handlers", nil, "other OCI runtimes for RuntimeClasses, as HANDLER=PATH,... (default: sampan's own alone)")
	flags.BoolVar(&o.SELinux, "selinux", true, "label containers and their volumes where this kernel has SELinux")
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "log what happens")
	return cmd
}
