package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
)

// Docker's networks are for finding each other by name, and for being apart. All pods are
// on one network, which each node divides by rules: see node/segment, whose words these
// are. That such a network is there at all is a headless Service, which selects the pods
// that are on it by a label of theirs.
const (
	// networkLabel is on a network's Service, with its name.
	networkLabel = "sampan.dev/network-name"
	// networkPrefix begins the names of such Services.
	networkPrefix = "sampan-network-"
	// memberPrefix begins the label of a pod that is on a network, whose name follows;
	// its value is isMember.
	memberPrefix = "network.sampan.dev/"
	isMember     = "member"
	// internalAnnotation is on the Service of a network without a way out.
	internalAnnotation = "sampan.dev/network-internal"
	// aliasPrefix begins annotations of the Service, with the further names of the pod
	// whose name follows, and commas between them.
	aliasPrefix = "aliases.sampan.dev/"
	// bridgeNetwork is that of all pods that are on no other.
	bridgeNetwork = "bridge"
)

// builtIn are the networks that --network knows without their being made.
var builtIn = []string{bridgeNetwork, "host", noNetwork} //nolint:gochecknoglobals // a constant list

// namedNetwork is a network in docker's words.
type namedNetwork struct {
	Name, Driver, Scope string
	Created             time.Time
	Containers          map[string]networkMember
	// ID is that of its Service, or the name of what is there anyway.
	ID       string `json:"Id"`
	Internal bool
	Labels   labelled
}

// networkMember is one of its containers.
type networkMember struct{ Name, IPv4Address string }

// networkCommands are the verbs for networks.
func networkCommands(s *Settings) []*cobra.Command {
	return []*cobra.Command{networkCreateCommand(s), networkListCommand(s), networkInspectCommand(s), networkRemoveCommand(s), networkPruneCommand(s),
		networkConnectCommand(s), networkDisconnectCommand(s)}
}

func networkCreateCommand(s *Settings) *cobra.Command {
	driver, labels, internal := "", []string{}, false
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a network, on which containers find each other by their names", Args: cobra.ExactArgs(1),
		Long: `Make a network: containers of sampan run --network NAME find each other by their names
and by their --network-alias, and reach nobody who is not on it, nor does anybody else
reach them but by ports that they publish. A container may be on several: it reaches who
is on any of them. All other containers and pods are on the one called bridge.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if driver != "bridge" {
				return fmt.Errorf("--driver=%s: want bridge", driver)
			}
			if slices.Contains(builtIn, name) || name == "default" {
				return fmt.Errorf("network %q is there already", name)
			}
			if wrong := validation.IsDNS1123Label(networkPrefix + name); len(wrong) > 0 {
				return fmt.Errorf("network %q: want lower-case letters, digits and -, at most %d", name, validation.DNS1123LabelMaxLength-len(networkPrefix))
			}
			noted, err := noteLabels(labels)
			if err != nil {
				return err
			}
			if internal {
				noted[internalAnnotation] = "true"
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			_, err = client.Services.Create(cmd.Context(), server, networkService(server.namespace, name, noted))
			if apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("network %q is there already", name)
			}
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return unanswered(err)
		},
	}
	cmd.Flags().StringVarP(&driver, "driver", "d", "bridge", "bridge")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "NAME[=VALUE]: a label, for ls and prune")
	cmd.Flags().BoolVar(&internal, "internal", false, "without a way out: who is on no other network reaches nobody else, nor this machine")
	networkForeign(cmd)
	return cmd
}

// networkService is what a network is to the cluster.
func networkService(namespace, name string, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: networkPrefix + name, Namespace: namespace, Labels: map[string]string{networkLabel: name}, Annotations: annotations},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true, Selector: map[string]string{memberPrefix + name: isMember}},
	}
}

// networks are those that have been made, with their containers.
func (s *server) networks(ctx context.Context, namespace string) ([]namedNetwork, error) {
	made, _, err := client.Services.List(ctx, s, namespace, metav1.ListOptions{LabelSelector: networkLabel})
	if err != nil {
		return nil, unanswered(err)
	}
	pods, _, err := client.Pods.List(ctx, s, namespace, metav1.ListOptions{LabelSelector: runLabel})
	if err != nil {
		return nil, unanswered(err)
	}
	return networksOf(made, pods), nil
}

// networks are those of the namespace that is meant, and where they are.
func (s *Settings) networks(ctx context.Context) (*server, []namedNetwork, error) {
	server, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	all, err := server.networks(ctx, server.namespace)
	return server, all, err
}

// networksOf are those that have been made, and those that are there anyway.
func networksOf(made []*corev1.Service, pods []*corev1.Pod) []namedNetwork {
	var all []namedNetwork
	for _, m := range made {
		if name := m.Labels[networkLabel]; !slices.Contains(builtIn, name) { // see needed
			all = append(all, namedNetwork{Name: name, Driver: bridgeNetwork, Scope: "local", Created: m.CreationTimestamp.UTC(),
				ID: digits(string(m.UID)), Labels: labelsOn(m), Internal: m.Annotations[internalAnnotation] == "true"})
		}
	}
	for _, name := range builtIn {
		driver := name
		if name == noNetwork {
			driver = "null" // docker's word
		}
		all = append(all, namedNetwork{ID: name, Name: name, Driver: driver, Scope: "local"})
	}
	for i := range all {
		all[i].Containers = map[string]networkMember{}
		for _, p := range pods {
			if slices.Contains(networksOfPod(p), all[i].Name) {
				all[i].Containers[idOf(p)] = networkMember{p.Name, p.Status.PodIP}
			}
		}
	}
	return all
}

// networksOfPod are the names of those that a pod is on.
func networksOfPod(pod *corev1.Pod) []string {
	if pod.Spec.HostNetwork {
		return []string{"host"}
	}
	if pod.Annotations[networkAnnotation] == noNetwork {
		return []string{noNetwork}
	}
	var all []string
	for label, value := range pod.Labels {
		if name, ok := strings.CutPrefix(label, memberPrefix); ok && value == isMember {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return []string{bridgeNetwork}
	}
	slices.Sort(all)
	return all
}

// network is one that has been made.
func (s *server) network(ctx context.Context, namespace, name string) (namedNetwork, error) {
	all, err := s.networks(ctx, namespace)
	if err != nil {
		return namedNetwork{}, err
	}
	i := slices.IndexFunc(all, func(v namedNetwork) bool { return v.Name == name })
	if i < 0 && len(name) >= leastID {
		i = slices.IndexFunc(all, func(v namedNetwork) bool { return strings.HasPrefix(v.ID, digits(name)) })
	}
	if i < 0 {
		return namedNetwork{}, fmt.Errorf("network %q is not found: sampan network create %s makes it", name, name)
	}
	return all[i], nil
}

func networkListCommand(s *Settings) *cobra.Command {
	var l listing
	filters := []string{}
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the networks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keep, err := networkFilters(filters)
			if err != nil {
				return err
			}
			_, all, err := s.networks(cmd.Context())
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(v namedNetwork) bool { return !keep(v) })
			slices.SortFunc(all, func(a, b namedNetwork) int { return strings.Compare(a.Name, b.Name) })
			return show(l, cmd.OutOrStdout(), all, []string{"NAME", "DRIVER", "SCOPE"}, func(v namedNetwork) []string { return []string{v.Name, v.Driver, v.Scope} })
		},
	}
	l.flags(cmd, "{{.Name}} {{.Driver}}")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, networkFilterWords)
	cmd.Flags().Bool("no-trunc", false, "nothing: nothing is cut")
	hide(cmd.Flags(), "no-trunc")
	return cmd
}

func networkInspectCommand(s *Settings) *cobra.Command {
	cmd := inspecting("Show which containers are on networks, as JSON", func(cmd *cobra.Command, name string) (namedNetwork, error) {
		server, err := s.connect()
		if err != nil {
			return namedNetwork{}, err
		}
		return server.network(cmd.Context(), server.namespace, name)
	})
	foreignFlags(cmd, foreign{name: "verbose", letter: "v", idle: true, why: "it is about swarm"})
	return cmd
}

func networkRemoveCommand(s *Settings) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, Short: "Remove networks that no container is on", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			return each(args, func(name string) error {
				if slices.Contains(builtIn, name) {
					return fmt.Errorf("network %q is there always", name)
				}
				v, err := server.network(cmd.Context(), server.namespace, name)
				if err != nil {
					if force {
						return nil
					}
					return err
				}
				for _, c := range v.Containers {
					return fmt.Errorf("network %q is of %s: sampan rm first", name, c.Name)
				}
				return server.dropNetwork(cmd.Context(), v, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "it is no error when there is none")
	return cmd
}

func networkPruneCommand(s *Settings) *cobra.Command {
	filters := []string{}
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove networks that no container is on", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := pruneFilters(filters, time.Now(), byBoth...)
			if err != nil {
				return err
			}
			return s.pruneNetworks(cmd, f)
		},
	}
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "only those that fit: "+alternatives(byBoth))
	cmd.Flags().BoolP("force", "f", false, "nothing: nobody is asked")
	hide(cmd.Flags(), "force")
	return cmd
}

// pruneNetworks removes the networks that no container is on and that fit.
func (s *Settings) pruneNetworks(cmd *cobra.Command, f pruneFilter) error {
	server, all, err := s.networks(cmd.Context())
	if err != nil {
		return err
	}
	for _, v := range all {
		if slices.Contains(builtIn, v.Name) || len(v.Containers) > 0 || !f.fits(v.Created, v.Labels) {
			continue
		}
		if err := server.dropNetwork(cmd.Context(), v, cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) dropNetwork(ctx context.Context, v namedNetwork, out io.Writer) error {
	if err := client.Services.Delete(ctx, s, s.namespace, networkPrefix+v.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err := fmt.Fprintln(out, v.Name)
	return err
}
