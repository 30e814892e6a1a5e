// Command kubectl is upstream's kubectl, unchanged. It is a program of its own,
// carried inside sampan and run on demand, because linked in, its packages'
// initialisation would cost every start of sampan 50 ms and more.
package main

import (
	"os"

	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cmd.NewDefaultKubectlCommand().Execute(); err != nil {
		util.CheckErr(err)
		os.Exit(1)
	}
}
