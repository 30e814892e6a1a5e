package cli

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/internal/zpages"
)

// UpOptions shape a cluster.
type UpOptions struct {
	Settings
	// NodeName is the node's name; the host's when empty.
	NodeName string
	// Port is where the API server listens on all addresses.
	Port int
	// ClusterCIDR is the range of all nodes' pods, PodCIDR that of this node's own.
	ClusterCIDR, PodCIDR string
	// ServiceCIDR and Domain are the range of services and the DNS domain.
	ServiceCIDR, Domain string
	// EtcdServers are external etcd members; none means the embedded one.
	EtcdServers []string
	// EtcdCA, EtcdCert and EtcdKey are PEM files for TLS with those members.
	EtcdCA, EtcdCert, EtcdKey string
	// ContainerRuntime is the CRI socket of a foreign engine; "" means our own.
	ContainerRuntime string
	// RuntimeHandlers are paths of other OCI runtimes (runc, crun) by the names that
	// RuntimeClasses give them as handlers.
	RuntimeHandlers map[string]string
	// SELinux has containers and their volumes labelled, where the kernel has it.
	SELinux bool
	// EncryptionConfig is an EncryptionConfiguration; "" seals Secrets alone, with
	// the cluster's own key.
	EncryptionConfig string
	// AuditPolicy and AuditWebhook are the files of an audit policy and of a
	// kubeconfig of who else gets the events; "" means Metadata, and nobody.
	AuditPolicy, AuditWebhook string
	// SchedulerConfig is the file of a KubeSchedulerConfiguration; "" means
	// upstream's default scheduler.
	SchedulerConfig string
	// FeatureGates are upstream's, where they are not at their default.
	FeatureGates Gates
	// KubeletConfig and KubeletConfigDir are the file of a KubeletConfiguration
	// and a directory of additions to it; "" means our defaults.
	KubeletConfig, KubeletConfigDir string
	// Credentials are who is asked for credentials of registries.
	Credentials CredentialProviders
	// Registry is where the node's images are served as a registry, ADDRESS:PORT;
	// "" means nowhere.
	Registry string
	// Access says who may come in besides the cluster's own.
	Access AccessOptions
	// Flags are the flags' names and values as text, for people to look up.
	Flags map[string]string
	// Verbose logs everything.
	Verbose bool
}

// CredentialProviders are programs that have credentials of registries for pods' images,
// as the kubelet's plugins: Config is the file of a CredentialProviderConfig, or a
// directory of such files, and Programs where the programs are. "" means none.
type CredentialProviders struct{ Config, Programs string }

func (c *CredentialProviders) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&c.Config, "image-credential-provider-config", "", "CredentialProviderConfig, a file or a directory of them: programs that have credentials for pods' images (default: none)")
	flags.StringVar(&c.Programs, "image-credential-provider-bin-dir", "", "directory of those programs")
}

// DefaultRegistry is where images are served when nothing but --registry is said:
// any user of this machine can push there, and nobody else. That is why it is off
// unless somebody wants it.
const DefaultRegistry = "127.0.0.1:5000"

// Report is told of each step that has been reached.
type Report func(step string)

// Ready is the last step that Up reports.
const Ready = "ready"

func upCommand(p Program, s *Settings) *cobra.Command {
	o := UpOptions{}
	background := detached{}
	cmd := &cobra.Command{
		Use: "up", Short: "Start a cluster on this machine", Args: cobra.NoArgs,
		Long: `Start a cluster on this machine and keep it running until Ctrl-C, or with --detach
in the background. Containers keep running while sampan restarts; sampan down
stops everything and leaves nothing behind.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("a cluster needs namespaces, mounts and cgroups, which only root may make: run sudo sampan up")
			}
			o.Settings = *s
			if background.on {
				return background.start(cmd, o.Settings)
			}
			o.Flags = flagValues(cmd)
			hint := fmt.Sprintf("Use it: sampan kubectl get nodes\n    or: export KUBECONFIG=%s", o.AdminKubeconfig())
			return inForeground(cmd, o.Settings, hint, func(r Report) error { return p.Up(cmd.Context(), o, r) })
		},
	}
	flags := cmd.Flags()
	background.flags(cmd, "return once the cluster is ready and leave it running")
	flags.StringVar(&o.NodeName, "node-name", "", "name of this node (default: the host's)")
	flags.IntVar(&o.Port, "port", 6443, "port of the API server")
	flags.StringVar(&o.ClusterCIDR, "cluster-cidr", "10.42.0.0/16", "addresses of all nodes' pods; each node that joins gets a /24 of it")
	flags.StringVar(&o.PodCIDR, "pod-cidr", "10.42.0.0/24", "addresses of this node's pods (with --etcd-servers: the cluster gives them)")
	flags.StringVar(&o.ServiceCIDR, "service-cidr", "10.96.0.0/16", "addresses of services")
	flags.StringVar(&o.Domain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	flags.StringSliceVar(&o.EtcdServers, "etcd-servers", nil, "URLs of an external etcd cluster (default: embedded)")
	flags.StringVar(&o.EtcdCA, "etcd-cafile", "", "authority of the external etcd's certificates")
	flags.StringVar(&o.EtcdCert, "etcd-certfile", "", "our certificate for the external etcd")
	flags.StringVar(&o.EtcdKey, "etcd-keyfile", "", "key of that certificate")
	flags.StringVar(&o.ContainerRuntime, "container-runtime-endpoint", "", "CRI socket of another container engine (default: built in)")
	flags.StringToStringVar(&o.RuntimeHandlers, "runtime-handlers", nil, "other OCI runtimes for RuntimeClasses, as HANDLER=PATH,... (default: sampan's own alone)")
	flags.BoolVar(&o.SELinux, "selinux", true, "label containers and their volumes where this kernel has SELinux")
	flags.StringVar(&o.EncryptionConfig, "encryption-provider-config", "", "file that says what is encrypted at rest, and how (default: Secrets, with a key of our own)")
	flags.StringVar(&o.SchedulerConfig, "scheduler-config", "", "KubeSchedulerConfiguration of the scheduler: profiles, plugins, extenders (default: upstream's default profile)")
	flags.Var(&o.FeatureGates, "feature-gates", "upstream's feature gates to switch, as A=true,B=false; known: "+GenericWorkload+" (false: pod groups that are scheduled as one)")
	flags.StringVar(&o.AuditPolicy, "audit-policy-file", "", "file that says what the audit log has (default: who did what, without bodies)")
	flags.StringVar(&o.AuditWebhook, "audit-webhook-config-file", "", "kubeconfig of a webhook that gets the audit events too")
	flags.StringVar(&o.KubeletConfig, "kubelet-config", "", "KubeletConfiguration of this node (default: none)")
	flags.StringVar(&o.KubeletConfigDir, "kubelet-config-dir", "", "directory of *.conf files that are merged over --kubelet-config")
	o.Credentials.flags(cmd)
	flags.StringVar(&o.Registry, "registry", "", "serve this node's images as a registry at ADDRESS:PORT (with --registry alone: "+DefaultRegistry+")")
	flags.Lookup("registry").NoOptDefVal = DefaultRegistry
	o.Access.flags(cmd)
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "log what happens")
	return cmd
}

// flagValues are a command's flags and their values as text; of those that are secret,
// only that they are.
func flagValues(cmd *cobra.Command, secret ...string) map[string]string {
	values := map[string]string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		values[f.Name] = f.Value.String()
		if slices.Contains(secret, f.Name) && values[f.Name] != "" {
			values[f.Name] = zpages.Classified
		}
	})
	return values
}

// inForeground runs a cluster or a node here, telling of each step as it is reached,
// and what may be done next.
func inForeground(cmd *cobra.Command, s Settings, hint string, run func(Report) error) error {
	lock, err := takeLock(s.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	start := time.Now()
	out := cmd.OutOrStdout()
	return run(func(step string) {
		fmt.Fprintf(out, "%6d ms  %s\n", time.Since(start).Milliseconds(), step)
		if step == Ready && os.Getenv(detachedEnv) == "" {
			fmt.Fprintf(out, "\n%s\nCtrl-C stops sampan; containers run on until sampan down.\n", hint)
		}
	})
}

// detachedEnv marks the background process, whose output is a log.
const detachedEnv = "SAMPAN_DETACHED"

// detached is --detach, and how long it waits.
type detached struct {
	on      bool
	timeout time.Duration
}

func (d *detached) flags(cmd *cobra.Command, about string) {
	cmd.Flags().BoolVarP(&d.on, "detach", "d", false, about)
	cmd.Flags().DurationVar(&d.timeout, "timeout", time.Minute, "how long --detach waits for that, before it gives up and stops what it has started")
}

// start starts this program again in a session of its own and repeats its
// progress until the cluster is ready.
func (d *detached) start(cmd *cobra.Command, s Settings) error {
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	at, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	progress, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer progress.Close()
	child := exec.Command("/proc/self/exe", withoutDetach(os.Args[1:])...)
	child.Stdout, child.Stderr = theirs, log
	child.Env = append(os.Environ(), detachedEnv+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	switch err := awaitReady(progress, cmd.OutOrStdout(), d.timeout); {
	case err == nil:
		return child.Process.Release()
	case errors.Is(err, os.ErrDeadlineExceeded):
		terminate(child)
		return fmt.Errorf("not ready after %s, and stopped: a slow machine may take longer (--timeout); %s is its log", d.timeout, s.logFile())
	}
	return failure(child, s.logFile(), at)
}

// awaitReady copies progress lines until the last one. An error says that there is none
// to come, or that time is up (os.ErrDeadlineExceeded).
func awaitReady(progress *os.File, out io.Writer, timeout time.Duration) error {
	_ = progress.SetReadDeadline(time.Now().Add(timeout)) // a pipe; without a deadline we wait longer
	lines := bufio.NewScanner(progress)
	for lines.Scan() {
		fmt.Fprintln(out, lines.Text())
		if strings.HasSuffix(lines.Text(), "  "+Ready) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// terminate stops a background process, which has ended already, usually.
func terminate(child *exec.Cmd) {
	if child.ProcessState == nil {
		_ = child.Process.Signal(syscall.SIGTERM)
		_ = child.Wait()
	}
}

// failure says why the background process did not get ready: the end of what it
// wrote to its log.
func failure(child *exec.Cmd, path string, from int64) error {
	terminate(child)
	raw, err := os.ReadFile(path)
	if err != nil || int64(len(raw)) <= from {
		return fmt.Errorf("the cluster did not get ready; its log is %s", path)
	}
	lines := strings.Split(strings.TrimSpace(string(raw[from:])), "\n")
	if at := slices.IndexFunc(lines, broke); at >= 0 {
		return fmt.Errorf("the cluster broke: %s; %s has the details", lines[at], path)
	}
	return errors.New(strings.TrimPrefix(lines[len(lines)-1], "sampan: "))
}

// broke finds the line in which Go says why it ended a program; stacks follow it.
func broke(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

func (s Settings) logFile() string { return filepath.Join(s.DataDir, "sampan.log") }

func withoutDetach(args []string) []string {
	var kept []string
	for _, a := range args {
		if a != "-d" && a != "--detach" && a != "--detach=true" {
			kept = append(kept, a)
		}
	}
	return kept
}

// takeLock makes sure that one process at a time runs on a data directory.
func takeLock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	f, err := os.OpenFile(lockPath(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lockPath(dir))
		f.Close()
		return nil, fmt.Errorf("sampan is already running on %s (pid %s): stop it with sampan down, or choose another --data-dir",
			dir, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f, err
}

func lockPath(dir string) string { return filepath.Join(dir, "sampan.lock") }

// shortHash tells directories apart in eight letters.
func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}
