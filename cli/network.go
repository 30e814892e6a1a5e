package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// Docker's networks are for finding each other by name, and for being apart. All pods are
// on one network; what a network of a name adds is that its containers have names in
// DNS: a headless service each, which goes with its pod. That such a network is there at
// all is a ConfigMap.
const (
	// networkLabel is on a network's ConfigMap and on its pods, with its name.
	networkLabel = "sampan.dev/network-name"
	// networkPrefix begins the names of such ConfigMaps.
	networkPrefix = "sampan-network-"
	// aliasAnnotation are a pod's further names, with commas between them.
	aliasAnnotation = "sampan.dev/network-aliases"
)

// builtIn are the networks that --network knows without their being made.
var builtIn = []string{"bridge", "host", noNetwork} //nolint:gochecknoglobals // a constant list

// namedNetwork is a network in docker's words.
type namedNetwork struct {
	Name, Driver, Scope string
	Created             time.Time
	Containers          map[string]networkMember
	// ID is that of its ConfigMap, "" for what is there anyway.
	ID     string `json:"Id"`
	Labels labelled
}

// networkMember is one of its containers.
type networkMember struct{ Name, IPv4Address string }

// networkCommands are the verbs for networks.
func networkCommands(s *Settings) []*cobra.Command {
	return []*cobra.Command{networkCreateCommand(s), networkListCommand(s), networkInspectCommand(s), networkRemoveCommand(s), networkPruneCommand(s),
		absentVerb("connect", "network connect", "a container is on the networks that sampan run --network says"),
		absentVerb("disconnect", "network disconnect", "a container is on the networks that sampan run --network says")}
}

func networkCreateCommand(s *Settings) *cobra.Command {
	driver, labels := "", []string{}
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a network, on which containers find each other by their names", Args: cobra.ExactArgs(1),
		Long: `Make a network: containers of sampan run --network NAME find each other by their names
and by their --network-alias. It keeps nobody out: all pods of a cluster are on one
network, and what may reach what is said by network policies.`,
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
			server, err := s.connect()
			if err != nil {
				return err
			}
			_, err = client.ConfigMaps.Create(cmd.Context(), server, &corev1.ConfigMap{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
				ObjectMeta: metav1.ObjectMeta{Name: networkPrefix + name, Namespace: server.namespace, Labels: map[string]string{networkLabel: name}, Annotations: noted},
			})
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
	networkForeign(cmd)
	return cmd
}

// networks are those that have been made, with their containers.
func (s *server) networks(ctx context.Context, namespace string) ([]namedNetwork, error) {
	maps, _, err := client.ConfigMaps.List(ctx, s, namespace, metav1.ListOptions{LabelSelector: networkLabel})
	if err != nil {
		return nil, unanswered(err)
	}
	pods, _, err := client.Pods.List(ctx, s, namespace, metav1.ListOptions{LabelSelector: networkLabel})
	if err != nil {
		return nil, unanswered(err)
	}
	return networksOf(maps, pods), nil
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

func networksOf(maps []*corev1.ConfigMap, pods []*corev1.Pod) []namedNetwork {
	var all []namedNetwork
	for _, m := range maps {
		v := namedNetwork{Name: m.Labels[networkLabel], Driver: "bridge", Scope: "local", Created: m.CreationTimestamp.UTC(), Containers: map[string]networkMember{},
			ID: string(m.UID), Labels: labelsOn(m)}
		for _, p := range pods {
			if p.Labels[networkLabel] == v.Name {
				v.Containers[string(p.UID)] = networkMember{p.Name, p.Status.PodIP}
			}
		}
		all = append(all, v)
	}
	return all
}

// network is one that has been made.
func (s *server) network(ctx context.Context, namespace, name string) (namedNetwork, error) {
	all, err := s.networks(ctx, namespace)
	if err != nil {
		return namedNetwork{}, err
	}
	i := slices.IndexFunc(all, func(v namedNetwork) bool { return v.Name == name })
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
			for _, name := range builtIn {
				driver := name
				if name == noNetwork {
					driver = "null" // docker's word
				}
				all = append(all, namedNetwork{Name: name, Driver: driver, Scope: "local"})
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
		if len(v.Containers) > 0 || !f.fits(v.Created, v.Labels) {
			continue
		}
		if err := server.dropNetwork(cmd.Context(), v, cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) dropNetwork(ctx context.Context, v namedNetwork, out io.Writer) error {
	if err := client.ConfigMaps.Delete(ctx, s, s.namespace, networkPrefix+v.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err := fmt.Fprintln(out, v.Name)
	return err
}

// onNetwork makes sure that the network is there which --network names.
func (r *running) onNetwork(ctx context.Context) error {
	name := r.pod.Labels[networkLabel]
	if name == "" {
		return nil
	}
	_, err := r.network(ctx, r.pod.Namespace, name)
	return err
}

// callIt gives a pod its names on its network.
func (s *server) callIt(ctx context.Context, pod *corev1.Pod) error {
	if pod.Labels[networkLabel] == "" {
		return nil
	}
	names := []string{pod.Name}
	if more := pod.Annotations[aliasAnnotation]; more != "" {
		names = append(names, strings.Split(more, ",")...)
	}
	for _, name := range names {
		svc := nameOf(pod, name)
		_, err := client.Services.Create(ctx, s, svc)
		if apierrors.IsAlreadyExists(err) {
			err = s.takeOver(ctx, pod, svc)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeOver keeps a name that was that of the pod's predecessor, and would go with it.
func (s *server) takeOver(ctx context.Context, pod *corev1.Pod, svc *corev1.Service) error {
	have, err := client.Services.Get(ctx, s, svc.Namespace, svc.Name)
	if err != nil {
		return err
	}
	if len(have.OwnerReferences) != 1 || have.OwnerReferences[0].Kind != "Pod" || have.OwnerReferences[0].Name != pod.Name {
		return fmt.Errorf("the name %q on the network is taken: sampan kubectl get service %s", svc.Name, svc.Name)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": svc.OwnerReferences}})
	if err != nil {
		return err
	}
	at := target.Of(client.Services.GroupVersionResource, svc.Namespace).Object(svc.Name)
	_, err = client.Services.Patch(ctx, s, at, client.Patch{Type: types.MergePatchType, Data: patch})
	return err
}

// nameOf is the service by which a pod has a name, for as long as there is the pod.
func nameOf(pod *corev1.Pod, name string) *corev1.Service {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	return &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: pod.Namespace, OwnerReferences: []metav1.OwnerReference{owner},
			Labels: map[string]string{networkLabel: pod.Labels[networkLabel]}},
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, PublishNotReadyAddresses: true, Selector: map[string]string{runLabel: pod.Name}},
	}
}
