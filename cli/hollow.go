package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// HollowOptions are a set of nodes without containers.
type HollowOptions struct {
	// Kubeconfig says how to reach the cluster, as somebody who may impersonate nodes.
	Kubeconfig string
	// Server replaces the kubeconfig's URL when it is set.
	Server string
	// Nodes is how many; Prefix and a number from First on are their names.
	Nodes, First int
	Prefix       string
	// CPU and Memory are quantities; Pods is how many each takes.
	CPU, Memory string
	Pods        int64
	// Tainted keeps pods off that do not tolerate hollow.sampan.dev/node.
	Tainted bool
	// Profiles, unless it is "", is an address and port where this process shows its
	// profiles to whoever asks.
	Profiles string
	// Out is told when all have begun; Verbose logs what happens.
	Out     io.Writer
	Verbose bool
}

func hollowCommand(p Program, s *Settings) *cobra.Command {
	o := HollowOptions{}
	cmd := &cobra.Command{
		Use: "hollow", Short: "Join nodes without containers, to try a cluster's size", Args: cobra.NoArgs,
		Long: `Join nodes that run no containers, until Ctrl-C: the real agent with its real
traffic, on an engine that only remembers. Their pods become ready at once; those
with the annotation hollow.sampan.dev/runs-for, such as 10s, end well after that
time. The Node objects stay behind: remove them with
kubectl delete nodes -l hollow.sampan.dev/node.

You must be allowed to impersonate users: an administrator is.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Nodes <= 0 {
				return fmt.Errorf("--nodes %d: want one at least", o.Nodes)
			}
			o.Kubeconfig, o.Out = s.Kubeconfig, cmd.OutOrStdout()
			return p.Hollow(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Nodes, "nodes", 10, "how many")
	flags.IntVar(&o.First, "first", 0, "number of the first")
	flags.StringVar(&o.Prefix, "prefix", "hollow-", "what their names begin with")
	flags.StringVar(&o.Server, "server", "", "URL of the API server (default: the kubeconfig's)")
	flags.StringVar(&o.CPU, "cpu", "32", "processors of each")
	flags.StringVar(&o.Memory, "memory", "256Gi", "memory of each")
	flags.Int64Var(&o.Pods, "pods", 110, "pods that each takes")
	flags.BoolVar(&o.Tainted, "taint", false, "give them the taint hollow.sampan.dev/node:NoSchedule")
	flags.StringVar(&o.Profiles, "profiles", "", "address and port for Go's profiles of this process, such as 127.0.0.1:6060; whoever reaches it sees them")
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "log what happens")
	return cmd
}
