// Command kubectl is upstream's kubectl, unchanged. It is a program of its own,
// carried inside sampan and run on demand, because linked in, its packages'
// initialisation would cost every start of sampan 50 ms and more.
package main

import (
	"flag"
	"os"
	"time"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // a kubeconfig's auth-provider
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

// flushEvery is how often what is logged is written out, by default: upstream's.
const flushEvery = 5 * time.Second

func main() {
	logging := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(logging)
	// Making the command reads plugins and kuberc, before its flags are parsed: -v
	// holds for that too.
	_ = logging.Set("v", cmd.GetLogVerbosity(os.Args))
	command := cmd.NewDefaultKubectlCommand()
	addLogging(command, logging)
	err := command.Execute()
	klog.Flush()
	if err != nil {
		util.CheckErr(err)
		os.Exit(1)
	}
}

// addLogging does what k8s.io/component-base/cli does for upstream's own main. That
// package would bring along metrics and traces, 19 MB of them.
func addLogging(command *cobra.Command, logging *flag.FlagSet) {
	flags := command.PersistentFlags()
	for _, name := range []string{"v", "vmodule"} {
		flags.AddGoFlag(logging.Lookup(name))
	}
	every := flags.Duration("log-flush-frequency", flushEvery, "Maximum number of seconds between log flushes")
	command.SetGlobalNormalizationFunc(cliflag.WordSepNormalizeFunc)
	command.SilenceErrors = true // main tells them
	before := command.PersistentPreRunE
	command.PersistentPreRunE = func(c *cobra.Command, args []string) error {
		klog.StartFlushDaemon(*every)
		if before == nil {
			return nil
		}
		return before(c, args)
	}
}
