package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// runFlags are what the flags of run say.
type runFlags struct {
	interactive, tty, detach, remove bool
	name, namespace, workdir, user   string
	entrypoint                       *string
	restart, pull                    string
	// networks are all --network; network is the first of them, and joinings what they
	// mean: podOf reads them.
	networks                                       []string
	joinings                                       []joining
	network                                        string
	hostname, pid, ipc, stopSignal                 string
	limits                                         limitFlags
	stopTimeout                                    int64
	privileged, readOnly, quiet, init              bool
	ports, volumes, env, envFiles, labels, tmpfs   []string
	capAdd, capDrop, addHosts, dns, groups, sysctl []string
	mounts, securityOpts, volumesFrom              []string
	annotations, labelFiles, attach, aliases       []string
	runtime, userns, detachKeys                    string
	sigProxy                                       bool
	shmSize                                        string
	platform, cidFile                              string
	publishAll                                     bool
	expose, dnsSearch, dnsOptions                  []string
	health                                         healthFlags
	// refused are flags that pods have no word for, idle those that do nothing, and what
	// was said with each.
	refused              map[string]*string
	idle                 map[string]*[]string
	neverKill, apiSocket bool
	// gated: the container is made, and begins when sampan start says so.
	gated bool
}

func runCommand(p Program, s *Settings) *cobra.Command {
	var f runFlags
	entrypoint := ""
	cmd := &cobra.Command{
		Use: "run [FLAGS] IMAGE [COMMAND [ARG...]]", Short: "Run a command in a container of its own", Args: cobra.MinimumNArgs(1),
		Long: `Run a command in a container of its own: a pod on this machine that kubectl sees too.
Its exit code is sampan's. An image that is not here is fetched first.

  sampan run --rm -it docker.io/library/alpine sh
  sampan run -d --name web -p 8080:80 docker.io/library/nginx
  echo hi | sampan run --rm -i docker.io/library/alpine cat`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("entrypoint") {
				f.entrypoint = &entrypoint
			}
			r, err := newRunning(cmd, p, s, f, args)
			if err != nil {
				return failedToRun(err)
			}
			return r.run(cmd.Context())
		},
	}
	runFlagsOf(cmd, &f, &entrypoint)
	return cmd
}

// runFlagsOf are run's flags. What follows the image is not for us.
func runFlagsOf(cmd *cobra.Command, f *runFlags, entrypoint *string) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return failedToRun(err) })
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "connect standard input")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	flags.BoolVarP(&f.detach, "detach", "d", false, "return once it runs, and print its name")
	flags.BoolVar(&f.remove, "rm", false, "remove it when it has ended")
	flags.StringVar(&f.name, "name", "", "its name, which is the pod's (default: one is made up)")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	flags.StringArrayVarP(&f.ports, "publish", "p", nil, "[[IP:]HOST:]CONTAINER[/udp]: a port of this machine, or a free one, that leads to one of the container; ranges too")
	flags.StringArrayVarP(&f.volumes, "volume", "v", nil, "HOST:CONTAINER[:ro]: a directory of this machine, or NAME:CONTAINER for one that sampan keeps")
	flags.StringArrayVar(&f.mounts, "mount", nil, "type=bind|volume|tmpfs,source=HOST,target=PATH[,readonly]: --volume and --tmpfs, in more words")
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "PATH[:size=BYTES]: a directory in memory")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE, or NAME with the value that it has here")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "file of such lines")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "NAME=VALUE: a label of the pod")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "directory to start in (default: the image's)")
	flags.StringVarP(&f.user, "user", "u", "", "USER[:GROUP], names of the image or numbers (default: the image's)")
	flags.StringVar(entrypoint, "entrypoint", "", "program to start instead of the image's; empty for none")
	flags.StringVar(&f.restart, "restart", "no", "no, on-failure[:MOST], always or unless-stopped")
	flags.StringArrayVar(&f.networks, "network", nil, "bridge, one or more that sampan network create has made, none for no other than its own loopback, or host for that of this machine")
	flags.StringArrayVar(&f.networks, "net", nil, "--network, in fewer letters")
	hide(flags, "net")
	flags.StringVar(&f.pull, "pull", "missing", "when to fetch the image: missing, always or never")
	limitFlagsOf(cmd, &f.limits)
	runIsolationFlags(cmd, f)
	runMoreFlags(cmd, f)
	runRefusedFlags(cmd, f)
}

// runIsolationFlags are those that give the container more or less of the machine.
func runIsolationFlags(cmd *cobra.Command, f *runFlags) {
	flags := cmd.Flags()
	flags.BoolVar(&f.privileged, "privileged", false, "give it everything that this machine's root has")
	flags.BoolVar(&f.init, "init", false, "let another process be the first, which takes care of orphans")
	flags.StringVar(&f.shmSize, "shm-size", "", "size of /dev/shm, such as 256m (default 64m)")
	flags.StringArrayVar(&f.securityOpts, "security-opt", nil, "no-new-privileges, seccomp=unconfined, apparmor=PROFILE or label=KIND:VALUE")
	flags.BoolVar(&f.readOnly, "read-only", false, "do not let it write to its image")
	flags.StringArrayVar(&f.capAdd, "cap-add", nil, "capability to add, or ALL")
	flags.StringArrayVar(&f.capDrop, "cap-drop", nil, "capability to take away, or ALL")
	flags.Bool("help", false, "what run can do") // -h is the host name, as in docker
	flags.StringVarP(&f.hostname, "hostname", "h", "", "its host name (default: its name)")
	flags.StringArrayVar(&f.addHosts, "add-host", nil, "HOST:IP: a line for /etc/hosts; host-gateway is the address of this machine")
	flags.StringArrayVar(&f.dns, "dns", nil, "name server to use instead of the cluster's")
	flags.StringArrayVar(&f.groups, "group-add", nil, "number of a further group of the user")
	flags.StringArrayVar(&f.sysctl, "sysctl", nil, "NAME=VALUE: a kernel parameter of its own")
	flags.StringVar(&f.pid, "pid", "", "host for the process IDs of this machine")
	flags.StringVar(&f.ipc, "ipc", "", "host for the shared memory of this machine")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "signal that asks it to end (default: the image's, or SIGTERM)")
	flags.Int64Var(&f.stopTimeout, "stop-timeout", 10, "seconds from there until it is killed")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no progress of fetching the image")
}

// failedToRun is the end of a run that has not come to a container.
func failedToRun(err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &ExitError{Code: exitFailed, Err: err}
}

// newRunning reads what run's words mean, and connects to the cluster.
func newRunning(cmd *cobra.Command, p Program, s *Settings, f runFlags, args []string) (*running, error) {
	if f.tty && f.interactive && !f.detach && !terminal(os.Stdin) {
		return nil, errors.New("-t with -i needs a terminal as standard input: leave out -t to pipe something in")
	}
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	if f.namespace == "" {
		f.namespace = server.namespace
	}
	r := &running{
		server: server, program: p, settings: s, flags: f, image: args[0], command: args[1:],
		in: cmd.InOrStdin(), out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(),
	}
	if err := r.choose(&f); err != nil {
		return nil, err
	}
	r.flags = f
	r.labelled = labelledHere()
	place := podPlace{volumes: s.volumeDir(), labelled: r.labelled, note: func(text string) { fmt.Fprintln(r.errOut, "sampan: "+text) }}
	if r.pod, err = podOf(f, args[0], args[1:], place); err != nil {
		return nil, fmt.Errorf("run %s: %w", args[0], err)
	}
	return r, errors.Join(r.borrow(cmd.Context()), r.onNetworks(cmd.Context()))
}
