package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
)

// JoinOptions say of which cluster this machine becomes a node.
type JoinOptions struct {
	Settings
	// Server is HOST:PORT of the API server; "" means the one that was joined before.
	Server string
	// Token lets a machine ask to become a node, CAHash pins the cluster's authority
	// ("sha256:" and the hex digest of its public key). Both are wanted once only.
	Token, CAHash string
	// NodeName is the node's name; the host's when empty.
	NodeName string
	// ContainerRuntime, KubeletConfig and KubeletConfigDir are as in UpOptions.
	ContainerRuntime, KubeletConfig, KubeletConfigDir string
	// Credentials are as in UpOptions.
	Credentials CredentialProviders
	// RuntimeHandlers are as in UpOptions.
	RuntimeHandlers map[string]string
	// SELinux is as in UpOptions.
	SELinux bool
	// Flags are as in UpOptions; the token's value is not told.
	Flags map[string]string
	// Verbose logs everything.
	Verbose bool
}

func joinCommand(p Program, s *Settings) *cobra.Command {
	o := JoinOptions{}
	background := detached{}
	cmd := &cobra.Command{
		Use: "join [HOST:PORT]", Short: "Make this machine a node of another's cluster", Args: cobra.MaximumNArgs(1),
		Long: `Make this machine a node of the cluster whose API server is at HOST:PORT, until
Ctrl-C, or with --detach in the background. On the server, sampan token create prints
the whole command. Once joined, sampan join alone starts the node again.

All nodes must be in one network: pods reach each other by routes, not tunnels.
sampan down stops what runs here; with --purge the machine forgets the cluster, and
kubectl delete node lets the cluster forget the machine.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errors.New("a node needs namespaces, mounts and cgroups, which only root may make: run sudo sampan join")
			}
			o.Settings = *s
			if len(args) == 1 {
				o.Server = args[0]
			}
			if background.on {
				return background.start(cmd, o.Settings)
			}
			o.Flags = flagValues(cmd, "token")
			return inForeground(cmd, o.Settings, "kubectl get nodes shows this node.", func(r Report) error { return p.Join(cmd.Context(), o, r) })
		},
	}
	flags := cmd.Flags()
	background.flags(cmd, "return once the node is ready and leave it running")
	flags.StringVar(&o.Token, "token", "", "token of sampan token create; wanted the first time only")
	flags.StringVar(&o.CAHash, "ca-hash", "", "hash of the cluster's authority, sha256:...; wanted the first time only")
	flags.StringVar(&o.NodeName, "node-name", "", "name of this node (default: the host's)")
	flags.StringVar(&o.ContainerRuntime, "container-runtime-endpoint", "", "CRI socket of another container engine (default: built in)")
	flags.StringToStringVar(&o.RuntimeHandlers, "runtime-handlers", nil, "other OCI runtimes for RuntimeClasses, as HANDLER=PATH,... (default: sampan's own alone)")
	flags.BoolVar(&o.SELinux, "selinux", true, "label containers and their volumes where this kernel has SELinux")
	flags.StringVar(&o.KubeletConfig, "kubelet-config", "", "KubeletConfiguration of this node (default: none)")
	flags.StringVar(&o.KubeletConfigDir, "kubelet-config-dir", "", "directory of *.conf files that are merged over --kubelet-config")
	o.Credentials.flags(cmd)
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "log what happens")
	return cmd
}
