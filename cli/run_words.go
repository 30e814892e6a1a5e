package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/image"
)

// createdGate keeps a container that sampan create has made from beginning.
const createdGate = "sampan.dev/created"

// ungatePatch lets it begin.
const ungatePatch = `{"spec":{"schedulingGates":null}}`

// runMoreFlags are those of docker's that need the image or the machine, and rarer ones.
func runMoreFlags(cmd *cobra.Command, f *runFlags) {
	flags := cmd.Flags()
	flags.BoolVarP(&f.publishAll, "publish-all", "P", false, "a free port of this machine for each that the image says it has, and each of --expose")
	flags.StringArrayVar(&f.expose, "expose", nil, "PORT[/udp]: one more port that --publish-all means; ranges too")
	flags.StringVar(&f.platform, "platform", "", "what the image shall be for, such as linux/arm64 (default: this machine)")
	flags.StringVar(&f.cidFile, "cidfile", "", "file to write the container's name to; it must not be there yet")
	flags.StringArrayVar(&f.dnsSearch, "dns-search", nil, "domain to look names up in")
	flags.StringArrayVar(&f.dnsOptions, "dns-option", nil, "NAME[:VALUE]: an option for resolv.conf")
	flags.StringArrayVar(&f.annotations, "annotation", nil, "NAME=VALUE: an annotation of the pod")
	flags.StringArrayVar(&f.labelFiles, "label-file", nil, "file of NAME=VALUE lines: labels of the pod")
	flags.StringArrayVar(&f.volumesFrom, "volumes-from", nil, "NAME[:ro]: the directories and named volumes that another container has")
	flags.StringArrayVar(&f.aliases, "network-alias", nil, "one more name on its network")
	flags.StringVar(&f.runtime, "runtime", "", "RuntimeClass of the pod (default: sampan's own)")
	flags.StringVar(&f.userns, "userns", "", "private for users of its own, that are nobody on this machine; or host (default)")
	flags.StringArrayVarP(&f.attach, "attach", "a", nil, "stdin, stdout or stderr: which streams to join (default: both outputs)")
	flags.BoolVar(&f.sigProxy, "sig-proxy", true, "bring the signals that sampan gets to the command")
	flags.StringVar(&f.detachKeys, "detach-keys", usualKeys, "keys that leave a terminal and let the container run on")
	healthFlagsOf(cmd, &f.health)
}

// refusals says of words that nothing would come of them, instead of leaving them out.
func (b *podBuilder) refusals() error {
	if err := b.beyondPods(); err != nil {
		return err
	}
	if p := b.flags.platform; p != "" && !strings.HasPrefix(p, "linux/") {
		return fmt.Errorf("--platform %q: want linux/ARCHITECTURE", p)
	}
	if b.flags.publishAll && b.flags.network == "host" {
		return errors.New("--publish-all and --network=host exclude each other: the container has the ports of this machine")
	}
	for _, text := range b.flags.expose {
		if _, err := publish(text); err != nil {
			return fmt.Errorf("--expose %q: %w", text, err)
		}
	}
	return nil
}

func (b *podBuilder) note(format string, args ...any) {
	if b.place.note != nil {
		b.place.note(fmt.Sprintf(format, args...))
	}
}

// unseen is ready without the image: what its config says is not known here.
func (r *running) unseen(ctx context.Context) error {
	for flag, said := range map[string]bool{"publish-all": r.flags.publishAll, "platform": r.flags.platform != ""} {
		if said {
			return fmt.Errorf("--%s: the node fetches the image, and it is not at hand here: run this as root on a node", flag)
		}
	}
	if err := r.flags.health.alone(); err != nil {
		return err
	}
	return r.number(ctx, nil, image.Image{})
}

// fromImage adds what the image says: its health check, the ports of --publish-all, and
// what volumes begin with.
func (r *running) fromImage(ctx context.Context, store *image.Store, img image.Image, node *corev1.Node) error {
	if here := "linux/" + runtime.GOARCH; r.flags.platform != "" && !samePlatform(here, img) {
		fmt.Fprintf(r.errOut, "sampan: the image is for %s, and this machine is %s\n", platformOf(img), here)
	}
	if err := errors.Join(r.imageHealth(store, img), r.seed(ctx, store, img), r.labelFiles(ctx)); err != nil {
		return err
	}
	if c := r.pod.Spec.Containers[0]; len(c.Command)+len(c.Args) == 0 { // what ps shows
		is := img.Config.Config
		r.pod.Annotations[runCommandAnnotation] = strings.Join(append(slices.Clone(is.Entrypoint), is.Cmd...), " ")
	}
	if !r.flags.publishAll {
		return nil
	}
	texts := slices.Clone(r.flags.expose)
	for port := range img.Config.Config.ExposedPorts {
		texts = append(texts, port)
	}
	slices.Sort(texts)
	var wanted []corev1.ContainerPort
	for _, text := range texts {
		ports, err := publish(text)
		if err != nil {
			return fmt.Errorf("--publish-all: port %q of the image: %w", text, err)
		}
		wanted = append(wanted, ports...)
	}
	taken, err := r.takenPorts(ctx, node.Name)
	if err != nil {
		return err
	}
	return r.publishFree(wanted, taken)
}

// takenPorts are the ports of a node that lead to other pods: nobody listens there.
func (r *running) takenPorts(ctx context.Context, node string) (map[int32]bool, error) {
	opts := metav1.ListOptions{FieldSelector: "spec.nodeName=" + node}
	pods, _, err := client.Pods.List(ctx, r, "", opts)
	if err != nil { // who may not see all sees those of the namespace, and the scheduler sees all
		pods, _, err = client.Pods.List(ctx, r, r.namespace, opts)
	}
	if err != nil {
		return nil, unanswered(err)
	}
	taken := map[int32]bool{}
	for _, p := range pods {
		for i := range p.Spec.Containers {
			for _, port := range p.Spec.Containers[i].Ports {
				taken[port.HostPort] = true
			}
		}
	}
	return taken, nil
}

// anyPorts gives the ports that --publish says no port of the machine for a free one each.
func (r *running) anyPorts(ctx context.Context, node string) error {
	ports := r.pod.Spec.Containers[0].Ports
	if !slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool { return p.HostPort == 0 }) {
		return nil
	}
	taken, err := r.takenPorts(ctx, node)
	if err != nil {
		return err
	}
	for i := range ports {
		taken[ports[i].HostPort] = true
	}
	for i := range ports {
		if ports[i].HostPort != 0 {
			continue
		}
		if ports[i].HostPort, err = freePort(ports[i].Protocol, taken); err != nil {
			return fmt.Errorf("--publish %d: %w", ports[i].ContainerPort, err)
		}
		taken[ports[i].HostPort] = true
	}
	return nil
}

// publishFree gives each port a free one of this machine, unless --publish has.
func (r *running) publishFree(wanted []corev1.ContainerPort, taken map[int32]bool) error {
	c := &r.pod.Spec.Containers[0]
	for _, p := range wanted {
		if slices.ContainsFunc(c.Ports, func(q corev1.ContainerPort) bool {
			return q.ContainerPort == p.ContainerPort && q.Protocol == p.Protocol
		}) {
			continue
		}
		port, err := freePort(p.Protocol, taken)
		if err != nil {
			return fmt.Errorf("--publish-all: %w", err)
		}
		taken[port], p.HostPort = true, port
		c.Ports = append(c.Ports, p)
	}
	return nil
}

// maxPortTries bounds the search for a free port.
const maxPortTries = 1000

// freePort is a port of this machine where nobody listens now.
func freePort(protocol corev1.Protocol, taken map[int32]bool) (int32, error) {
	for range maxPortTries {
		var at net.Addr
		var end io.Closer
		if protocol == corev1.ProtocolUDP {
			c, err := net.ListenPacket("udp", ":0") //nolint:noctx // it takes no time
			if err != nil {
				return 0, err
			}
			at, end = c.LocalAddr(), c
		} else {
			l, err := net.Listen("tcp", ":0") //nolint:noctx,gosec // as above; nobody is answered
			if err != nil {
				return 0, err
			}
			at, end = l.Addr(), l
		}
		end.Close()
		var port int32
		switch a := at.(type) {
		case *net.TCPAddr:
			port = int32(a.Port) //nolint:gosec // 16 bits
		case *net.UDPAddr:
			port = int32(a.Port) //nolint:gosec // 16 bits
		}
		if !taken[port] {
			return port, nil
		}
	}
	return 0, errors.New("no port of this machine is free")
}

// platformOf is what an image is for, in docker's words.
func platformOf(img image.Image) string {
	p := img.Config.OS + "/" + img.Config.Architecture
	if img.Config.Variant != "" {
		p += "/" + img.Config.Variant
	}
	return p
}

// samePlatform says whether an image is for a platform; one without a variant means
// any.
func samePlatform(platform string, img image.Image) bool {
	full := platformOf(img)
	return platform == full || strings.HasPrefix(full, platform+"/") || strings.HasPrefix(platform, full+"/")
}

// fits says whether an image is for the platform that was asked for.
func (r *running) fits(img image.Image) bool {
	return r.flags.platform == "" || samePlatform(r.flags.platform, img)
}

// written does create, with the container's name in --cidfile when it has succeeded.
func (r *running) written(create func() error) error {
	if r.flags.cidFile == "" {
		return create()
	}
	f, err := os.OpenFile(r.flags.cidFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // as docker's
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("--cidfile: %s is there: it may be another container's; remove it, or choose another name", r.flags.cidFile)
	}
	if err != nil {
		return fmt.Errorf("--cidfile: %w", err)
	}
	if err := create(); err != nil {
		return errors.Join(err, f.Close(), os.Remove(r.flags.cidFile))
	}
	_, err = f.WriteString(r.pod.Name)
	return errors.Join(err, f.Close())
}

func createCommand(p Program, s *Settings) *cobra.Command {
	f := runFlags{}
	entrypoint := ""
	cmd := &cobra.Command{
		Use: "create [FLAGS] IMAGE [COMMAND [ARG...]]", Short: "Make a container that begins later", Args: cobra.MinimumNArgs(1),
		Long: `Make a container as sampan run does, which begins when sampan start says so. Until
then it is a pod that no node takes; it holds no ports and no memory.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("entrypoint") {
				f.entrypoint = &entrypoint
			}
			f.gated, f.detach = true, true
			r, err := newRunning(cmd, p, s, f, args)
			if err != nil {
				return failedToRun(err)
			}
			return r.run(cmd.Context())
		},
	}
	runFlagsOf(cmd, &f, &entrypoint)
	hide(cmd.Flags(), "detach") // nobody waits anyway
	return cmd
}

func isGated(p *corev1.Pod) bool {
	return p.Spec.NodeName == "" && slices.ContainsFunc(p.Spec.SchedulingGates, func(g corev1.PodSchedulingGate) bool { return g.Name == createdGate })
}

// ungate lets a container begin that sampan create has made.
func (s *server) ungate(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name)
	now, err := client.Pods.Patch(ctx, s, at, client.Patch{Type: types.MergePatchType, Data: []byte(ungatePatch)})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", pod.Name, err)
	}
	return now, nil
}
