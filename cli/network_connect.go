package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// joining is one --network of run: a network, and the names that the container has on it
// beside its own.
type joining struct {
	name    string
	aliases []string
}

// joinings reads all --network: bridge, host and none, or the names of networks. mode is
// docker's NetworkMode, the first of them.
func joinings(texts, aliases []string) (mode string, all []joining, err error) {
	for _, text := range texts {
		j, err := readJoining(text)
		if err != nil {
			return "", nil, fmt.Errorf("--network=%s: %w", text, err)
		}
		all = append(all, j)
	}
	if len(all) == 0 {
		all = []joining{{name: bridgeNetwork}}
	}
	mode = all[0].name
	named := slices.ContainsFunc(all, func(j joining) bool { return !slices.Contains(builtIn, j.name) })
	for i := range all {
		if (all[i].name == "host" || all[i].name == noNetwork) && len(all) > 1 {
			return "", nil, fmt.Errorf("--network=%s excludes other networks", all[i].name)
		}
		if len(all[i].aliases) > 0 && slices.Contains(builtIn, all[i].name) {
			return "", nil, fmt.Errorf("--network: nobody has an alias on %s, but on a network that sampan network create has made", all[i].name)
		}
		if !slices.Contains(builtIn, all[i].name) {
			all[i].aliases = append(all[i].aliases, aliases...)
		}
		for _, alias := range all[i].aliases {
			if err := checkAlias(alias); err != nil {
				return "", nil, fmt.Errorf("--network-alias %q: %w", alias, err)
			}
		}
	}
	if len(aliases) > 0 && !named {
		return "", nil, fmt.Errorf("--network-alias %s is for a --network that sampan network create has made", aliases[0])
	}
	if !named {
		return mode, nil, nil
	}
	return mode, all, nil
}

// readJoining reads NAME, or name=NAME,alias=ALIAS.
func readJoining(text string) (joining, error) {
	if name, ok := strings.CutPrefix(text, "container:"); ok {
		return joining{}, errors.New(besideOf(name))
	}
	j := joining{name: text}
	if strings.Contains(text, "=") {
		j.name = ""
		for _, part := range strings.Split(text, ",") {
			switch key, value, _ := strings.Cut(part, "="); key {
			case "name":
				j.name = value
			case "alias":
				j.aliases = append(j.aliases, value)
			default:
				return j, fmt.Errorf("%s is not possible: name= and alias= are; a pod's address is the node's choice", key)
			}
		}
	}
	if j.name == "default" {
		j.name = bridgeNetwork
	}
	if len(validation.IsDNS1123Label(networkPrefix+j.name)) > 0 || j.name == "" {
		return j, errors.New("want bridge, host, none, or one that sampan network create has made")
	}
	return j, nil
}

func checkAlias(alias string) error {
	if len(validation.IsDNS1123Subdomain(strings.ToLower(alias))) > 0 {
		return errors.New("want letters, digits, - and dots, as host names have them")
	}
	return nil
}

// onNetworks makes sure that the networks are there which --network names, and that they
// know the container's further names.
func (r *running) onNetworks(ctx context.Context) error {
	_, all, err := joinings(r.flags.networks, r.flags.aliases)
	if err != nil {
		return err
	}
	for _, j := range all {
		if err := r.join(ctx, r.pod, j); err != nil {
			return err
		}
	}
	return nil
}

// join has a network know a container's further names, and no others.
func (s *server) join(ctx context.Context, pod *corev1.Pod, j joining) error {
	if err := s.needed(ctx, pod.Namespace, j.name); err != nil {
		return err
	}
	if slices.Contains(builtIn, j.name) {
		return nil
	}
	have, err := client.Services.Get(ctx, s, pod.Namespace, networkPrefix+j.name)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("network %q is not found: sampan network create %s makes it", j.name, j.name)
	}
	if err != nil {
		return unanswered(err)
	}
	want := strings.ToLower(strings.Join(j.aliases, ","))
	if have.Annotations[aliasPrefix+pod.Name] == want {
		return nil
	}
	value := &want
	if want == "" {
		value = nil // a merge patch takes it away
	}
	patch, err := mergePatch(map[string]any{"annotations": map[string]*string{aliasPrefix + pod.Name: value}})
	if err != nil {
		return err
	}
	_, err = client.Services.Patch(ctx, s, target.Of(client.Services.GroupVersionResource, have.Namespace).Object(have.Name), patch)
	return err
}

// needed makes the Services of bridge and none, when a container is the first to be on
// one of them while nodes must know it: on bridge beside another, or on none after all.
func (s *server) needed(ctx context.Context, namespace, name string) error {
	if !slices.Contains(builtIn, name) {
		return nil
	}
	_, err := client.Services.Create(ctx, s, networkService(namespace, name, nil))
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return unanswered(err)
}

func networkConnectCommand(s *Settings) *cobra.Command {
	var aliases []string
	cmd := &cobra.Command{
		Use: "connect NETWORK CONTAINER", Short: "Put a container on one more network, also while it runs", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			j, err := readJoining(args[0])
			if err != nil {
				return fmt.Errorf("network %q: %w", args[0], err)
			}
			j.aliases = aliases
			for _, alias := range aliases {
				if err := checkAlias(alias); err != nil {
					return fmt.Errorf("--alias %q: %w", alias, err)
				}
			}
			server, pod, err := s.member(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return server.connectTo(cmd.Context(), pod, j)
		},
	}
	cmd.Flags().StringArrayVar(&aliases, "alias", nil, "one more name on that network")
	const choice = "a pod's address is the node's choice"
	foreignFlags(cmd, foreign{name: "ip", word: true, why: choice}, foreign{name: "ip6", word: true, why: choice},
		foreign{name: "link-local-ip", word: true, why: choice}, foreign{name: "driver-opt", word: true, why: "a network has no driver of its own"},
		foreign{name: "gw-priority", word: true, idle: true, why: "a pod has one gateway"},
		foreign{name: "link", word: true, why: "containers of one network find each other by their names; --alias gives one more"})
	return cmd
}

func networkDisconnectCommand(s *Settings) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "disconnect NETWORK CONTAINER", Short: "Take a container off a network, also while it runs", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, pod, err := s.member(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return server.disconnectFrom(cmd.Context(), pod, args[0])
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "nothing: nobody is asked")
	hide(cmd.Flags(), "force")
	return cmd
}

// member finds a container that can be put on networks.
func (s *Settings) member(ctx context.Context, name string) (*server, *corev1.Pod, error) {
	server, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	pod, err := server.own(ctx, "", name)
	if err != nil {
		return nil, nil, err
	}
	for _, on := range networksOfPod(pod) {
		if on == "host" || pod.Annotations[networkAnnotation] == noNetwork {
			return nil, nil, fmt.Errorf("%s was made with --network=%s, and can be on no other", pod.Name, on)
		}
	}
	return server, pod, nil
}

func (s *server) connectTo(ctx context.Context, pod *corev1.Pod, j joining) error {
	labels, err := connected(pod, j.name)
	if err != nil {
		return err
	}
	for label := range labels { // bridge and none may be new to the nodes
		if err := s.needed(ctx, pod.Namespace, strings.TrimPrefix(label, memberPrefix)); err != nil {
			return err
		}
	}
	if err := s.join(ctx, pod, j); err != nil {
		return err
	}
	return s.label(ctx, pod, labels)
}

func (s *server) disconnectFrom(ctx context.Context, pod *corev1.Pod, name string) error {
	labels, err := disconnected(pod, name)
	if err != nil {
		return err
	}
	for label, value := range labels {
		if value != nil {
			err = errors.Join(err, s.needed(ctx, pod.Namespace, strings.TrimPrefix(label, memberPrefix)))
		}
	}
	if err != nil {
		return err
	}
	return s.label(ctx, pod, labels)
}

// connected are the labels that a pod gets when it is put on one more network; nil takes
// one away.
func connected(pod *corev1.Pod, name string) (map[string]*string, error) {
	on := networksOfPod(pod)
	if slices.Contains(on, name) {
		return nil, fmt.Errorf("%s is on network %q already", pod.Name, name)
	}
	if name == "host" || name == noNetwork {
		return nil, fmt.Errorf("a container is on %s from its start or never: sampan run --network=%s", name, name)
	}
	member := isMember
	labels := map[string]*string{memberPrefix + name: &member}
	if slices.Equal(on, []string{bridgeNetwork}) && pod.Labels[memberPrefix+bridgeNetwork] == "" {
		labels[memberPrefix+bridgeNetwork] = &member // where it is without any label
	}
	if slices.Contains(on, noNetwork) {
		labels[memberPrefix+noNetwork] = nil
	}
	return labels, nil
}

// disconnected are those that it gets when it is taken off one.
func disconnected(pod *corev1.Pod, name string) (map[string]*string, error) {
	on := networksOfPod(pod)
	if !slices.Contains(on, name) || name == noNetwork {
		return nil, fmt.Errorf("%s is not on network %q, but on %s", pod.Name, name, strings.Join(on, ", "))
	}
	labels := map[string]*string{memberPrefix + name: nil}
	if len(on) == 1 {
		member := isMember
		labels[memberPrefix+noNetwork] = &member
	}
	return labels, nil
}

func (s *server) label(ctx context.Context, pod *corev1.Pod, labels map[string]*string) error {
	patch, err := mergePatch(map[string]any{"labels": labels, "uid": pod.UID})
	if err != nil {
		return err
	}
	_, err = client.Pods.Patch(ctx, s, target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name), patch)
	return err
}

// mergePatch changes an object's metadata; nil takes a value away.
func mergePatch(metadata map[string]any) (client.Patch, error) {
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	return client.Patch{Type: types.MergePatchType, Data: data}, err
}

// withoutNetworks are a pod's labels but those that say which networks it is on.
func withoutNetworks(labels map[string]string) map[string]string {
	labels = maps.Clone(labels)
	maps.DeleteFunc(labels, func(label, _ string) bool { return strings.HasPrefix(label, memberPrefix) })
	return labels
}
