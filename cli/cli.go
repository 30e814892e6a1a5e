// Package cli is what a person types: one file a verb. It knows images, builds
// and the API; the parts of the cluster itself reach it as functions of Program,
// so that asking a question never starts more than is needed to answer it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// Program is what the verbs that run things need from the wiring.
type Program struct {
	// Version is shown by sampan version.
	Version string
	// Up runs a cluster until ctx ends; ready is called once it can be used.
	Up func(ctx context.Context, o UpOptions, report Report) error
	// Join runs a node of another machine's cluster until ctx ends.
	Join func(ctx context.Context, o JoinOptions, report Report) error
	// Restore puts a backup in the place of the state of a cluster that does not run.
	Restore func(ctx context.Context, o RestoreOptions) error
	// Down removes what a cluster has left on the machine: processes, mounts,
	// namespaces, cgroups, interfaces, tables. It is idempotent.
	Down func(ctx context.Context, o DownOptions) error
	// Runner executes the RUNs of a build; close ends what it started.
	Runner func(s Settings) (runner build.Runner, close func() error, err error)
	// Kubectl reads the kubectl program, zstd-compressed: megabytes that only one
	// verb wants in memory. It gives nil when there is none.
	Kubectl func() []byte
	// OCI becomes the OCI runtime's command line; it returns only when it cannot.
	// WriteOCI writes that program.
	OCI      func(args []string) error
	WriteOCI func(w io.Writer) error
	// Graph collects what every component declares to read and to write.
	Graph func() ([]Component, error)
	// Simulate says what would happen. It only reads the cluster.
	Simulate func(ctx context.Context, q Simulation) (*explain.Forecast, error)
	// Signal sends a signal to the first process of a pod's container on this
	// machine; errors.ErrUnsupported when it is not here, or not ours to reach, and
	// os.ErrProcessDone when it is here and has ended.
	Signal func(ctx context.Context, s Settings, podUID string, signal syscall.Signal) error
	// Process is the first process of a pod's container on this machine; its errors
	// are Signal's.
	Process func(ctx context.Context, s Settings, podUID string) (pid int, err error)
	// Hollow runs nodes without containers until ctx ends.
	Hollow func(ctx context.Context, o HollowOptions) error
	// Engine serves the container engine alone until ctx ends.
	Engine func(ctx context.Context, o EngineOptions, report Report) error
}

// Settings are the flags that every verb has.
type Settings struct {
	// DataDir holds the state of the cluster; RunDir what a reboot voids.
	DataDir, RunDir string
	// Kubeconfig is the file that says how to reach the API server.
	Kubeconfig string
}

// DefaultDataDir is where state lives unless --data-dir says otherwise.
const DefaultDataDir = "/var/lib/sampan"

// DefaultRunDir is where sockets and pinned namespaces live.
const DefaultRunDir = "/run/sampan"

// ImageDir is the image store's directory.
func (s Settings) ImageDir() string { return filepath.Join(s.DataDir, "images") }

// Cgroup is the parent of all that runs, its own for another --data-dir.
func (s Settings) Cgroup() string {
	if s.DataDir == DefaultDataDir {
		return "/sampan"
	}
	return "/sampan-" + shortHash(s.DataDir)
}

// AdminKubeconfig is the file that up writes.
func (s Settings) AdminKubeconfig() string { return filepath.Join(s.DataDir, "kubeconfig") }

// images opens the image store.
func (s Settings) images() (*image.Store, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("images belong to root: run this with sudo")
	}
	return image.Open(image.Config{Root: s.ImageDir()})
}

// New is the command line of sampan.
func New(p Program) *cobra.Command {
	s := &Settings{}
	root := &cobra.Command{
		Use:   "sampan",
		Short: "The whole of Kubernetes in one program",
		Long: `Sampan is the whole of Kubernetes in one program: API server, store, scheduler,
controllers, node agent, container runtime, image builder, network, DNS and kubectl.

  sampan up                      start a cluster here
  sampan build -t app:v1 .       build an image from a Dockerfile
  sampan run --rm -it app:v1 sh  run a command in a container of it
  sampan kubectl apply -f x.yaml use it as any Kubernetes
  sampan why pod/x               why is it as it is?
  sampan down                    stop, and leave nothing behind`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&s.DataDir, "data-dir", DefaultDataDir, "directory of the cluster's state")
	flags.StringVar(&s.RunDir, "run-dir", "", "directory of sockets and namespaces (default "+DefaultRunDir+", or one of its own for another --data-dir)")
	flags.StringVar(&s.Kubeconfig, "kubeconfig", "", "how to reach the API server (default: $KUBECONFIG, else that of --data-dir)")
	root.AddCommand(simulateCommand(p, s), graphCommand(p), hollowCommand(p, s), engineCommand(p, s))
	root.AddCommand(
		runCommand(p, s), createCommand(p, s), psCommand(s), logsCommand(s), execCommand(s), attachCommand(p, s), stopCommand(p, s), rmCommand(s),
		startCommand(p, s), restartCommand(p, s), killCommand(p, s), pauseCommand(p, s), unpauseCommand(p, s), waitCommand(s), portCommand(s),
		cpCommand(p, s), topCommand(p, s), statsCommand(s), eventsCommand(s), diffCommand(s), updateCommand(s), infoCommand(p, s), commitCommand(p, s), exportCommand(s), importCommand(s),
	)
	root.AddCommand(dockerGroups(p, s)...)
	root.AddCommand(absentVerbs()...)
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return s.complete() }
	root.AddCommand(
		upCommand(p, s), joinCommand(p, s), tokenCommand(s), downCommand(p, s), kubectlCommand(p, s), whyCommand(s), traceCommand(s),
		buildCommand(p, s), imagesCommand(s), pullCommand(s), pushCommand(s), tagCommand(s), rmiCommand(s),
		saveCommand(s), loadCommand(s), inspectCommand(p, s), historyCommand(s), pinCommand(s), pruneCommand(s), loginCommand(), logoutCommand(), ociCommand(p), ociInstallCommand(p), secretsCommand(s), backupCommand(s), restoreCommand(p, s), versionCommand(p),
	)
	return root
}

// complete fills the settings that follow from others.
func (s *Settings) complete() error {
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return err
	}
	s.DataDir = dir
	if s.RunDir == "" {
		s.RunDir = runDirOf(dir)
	}
	if s.Kubeconfig == "" {
		s.Kubeconfig = os.Getenv("KUBECONFIG")
	}
	if s.Kubeconfig == "" {
		s.Kubeconfig = s.AdminKubeconfig()
	}
	return nil
}

// runDirOf keeps clusters in two network namespaces of one machine apart.
func runDirOf(dataDir string) string {
	if dataDir == DefaultDataDir {
		return DefaultRunDir
	}
	return DefaultRunDir + "-" + shortHash(dataDir)
}

// terminal says whether w is one, so that progress may be drawn.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// versionView is what version tells, in docker's words: one program is both.
type versionView struct{ Client, Server versionOf }

type versionOf struct{ Version, GoVersion, Os, Arch string }

// number is the version alone, for programs that compare it: Version is a sentence that
// has it as its second word.
func (p Program) number() string {
	if words := strings.Fields(p.Version); len(words) > 1 {
		return words[1]
	}
	return p.Version
}

func versionCommand(p Program) *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "" {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), p.Version)
				return err
			}
			this := versionOf{p.number(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return templated(cmd.OutOrStdout(), format, []any{versionView{this, this}})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a template such as {{.Server.Version}}; both are this program")
	return cmd
}
