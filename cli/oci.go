package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// ociCommand is the verb of which the wiring makes a program of its own: it never
// gets here unless that failed, or to be told where that program is wanted.
func ociCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "oci COMMAND",
		Short: "Run OCI bundles: the command line of runc and crun",
		Long: `sampan oci is an OCI runtime, for those that start containers with runc or crun.
Both want the path of a program: a link called sampan-oci is one, and
sampan oci-install writes one that starts a little faster.

  ln -s $(command -v sampan) /usr/local/bin/sampan-oci
  podman --runtime /usr/local/bin/sampan-oci --cgroup-manager=cgroupfs run ...
  containerd: [...runtimes.sampan.options] BinaryName = "/usr/local/bin/sampan-oci"`,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return p.OCI(args) },
	}
	return cmd
}

// ociInstallCommand writes the program as a file.
func ociInstallCommand(p Program) *cobra.Command {
	return &cobra.Command{
		Use: "oci-install FILE", Short: "Write the OCI runtime as a program of its own", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			dir, name := filepath.Split(args[0])
			if dir == "" {
				dir = "."
			}
			f, err := os.CreateTemp(dir, "."+name+"-")
			if err != nil {
				return fmt.Errorf("install the OCI runtime: %w", err)
			}
			defer os.Remove(f.Name()) // gone by then, unless something failed
			if err := errors.Join(p.WriteOCI(f), f.Chmod(0o755), f.Close()); err != nil {
				return fmt.Errorf("install the OCI runtime: %w", err)
			}
			return os.Rename(f.Name(), args[0])
		},
	}
}
