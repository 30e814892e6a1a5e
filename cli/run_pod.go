package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// runLabel marks the pods that sampan run has made; its value is their name.
// runCommandAnnotation is what the person typed behind the image, for ps.
const (
	runLabel             = "sampan.dev/run"
	runCommandAnnotation = "sampan.dev/run-command"
	// idAnnotation is the ID of a container that has begun anew: that of its first pod.
	idAnnotation = "sampan.dev/id"
	// removeAnnotation has the cluster remove the pod when it has ended.
	removeAnnotation = "sampan.dev/remove-when-ended"
	// restartsAnnotation has the cluster end the pod when its container has failed
	// after so many restarts: see control/controller/giveup.
	restartsAnnotation = "sampan.dev/most-restarts"
	// networkAnnotation with noNetwork has sampan's own engine give the pod no network
	// but its loopback.
	networkAnnotation = "sampan.dev/network"
	noNetwork         = "none"
)

// podPlace is what podOf must know of the machine.
type podPlace struct {
	// volumes is the directory of those that have a name.
	volumes string
	// labelled collects which paths of this machine get which SELinux level; nil where
	// they get none.
	labelled map[string]string
	// note tells the person what a word does not do here; nil for nobody.
	note func(text string)
}

// podOf is the pod that run's words mean. It asks nobody.
func podOf(f runFlags, image string, command []string, place podPlace) (*corev1.Pod, error) {
	name := podsName(f.name)
	if f.name == "" {
		name = madeUpName()
	}
	if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
		return nil, fmt.Errorf("--name %q: want letters, digits and -, at most 63", f.name)
	}
	if f.name != "" && name != f.name && place.note != nil {
		place.note(fmt.Sprintf("it is called %s: the names of pods have lower-case letters, digits and - alone", name))
	}
	var err error
	if f.network, f.joinings, err = joinings(f.networks, f.aliases); err != nil {
		return nil, err
	}
	b := &podBuilder{flags: f, place: place, pod: &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: f.namespace,
			Labels:      map[string]string{runLabel: name},
			Annotations: map[string]string{runCommandAnnotation: strings.Join(command, " ")},
		},
		Spec: corev1.PodSpec{
			// A container for a person wants neither the API nor a variable for
			// each service.
			AutomountServiceAccountToken: new(bool), EnableServiceLinks: new(bool),
			TerminationGracePeriodSeconds: &f.stopTimeout,
			HostNetwork:                   f.network == "host", HostPID: f.pid == "host", HostIPC: f.ipc == "host",
			SecurityContext: &corev1.PodSecurityContext{},
		},
	}}
	if f.detach && f.remove { // else we wait for the end, and remove it
		b.pod.Annotations[removeAnnotation] = "true"
	}
	b.hostname()
	b.c = &corev1.Container{
		Name: name, Image: image, WorkingDir: f.workdir, TTY: f.tty, Stdin: f.interactive,
		// Who runs it is the one client, and gets what it prints from its start.
		StdinOnce:       !f.detach || f.gated && f.interactive, // sampan start -a is
		SecurityContext: &corev1.SecurityContext{},
	}
	for _, step := range []func() error{
		b.refusals, b.choices, b.start, b.environment, b.labels, b.limits, b.security, b.ports, b.mounts, b.names, b.health,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if len(command) > 0 {
		b.words(command)
	}
	if f.gated {
		b.pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: createdGate}}
	}
	b.pod.Spec.Containers = []corev1.Container{*b.c}
	return b.pod, nil
}

// idOf is a container's ID: that of its first pod, in hexadecimal digits alone, as docker's
// are. It stays over start and restart, though each is another pod.
func idOf(pod *corev1.Pod) string {
	return digits(cmp.Or(pod.Annotations[idAnnotation], string(pod.UID)))
}

// digits are an ID's without the dashes that a pod's has.
func digits(id string) string { return strings.ReplaceAll(id, "-", "") }

// podsName is the name of the pod of a container that a person calls so: docker has
// names with more in them.
func podsName(text string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(text))
}

// podBuilder fills in one group of flags after the other.
type podBuilder struct {
	flags runFlags
	place podPlace
	pod   *corev1.Pod
	c     *corev1.Container
}

// choices are flags of which only some values can be had.
func (b *podBuilder) choices() error {
	f := b.flags
	if err := b.restarts(); err != nil {
		return err
	}
	pulls := map[string]corev1.PullPolicy{
		"": corev1.PullIfNotPresent, "missing": corev1.PullIfNotPresent, "always": corev1.PullAlways, "never": corev1.PullNever,
	}
	var ok bool
	if b.c.ImagePullPolicy, ok = pulls[f.pull]; !ok {
		return fmt.Errorf("--pull=%s: want missing, always or never", f.pull)
	}
	for flag, known := range map[string]struct {
		value string
		want  []string
	}{
		"pid":    {f.pid, []string{"", "private", "host"}},
		"ipc":    {f.ipc, []string{"", "private", "shareable", "host"}},
		"userns": {f.userns, []string{"", "private", "host"}},
	} {
		if !slices.Contains(known.want, known.value) {
			if name, ok := strings.CutPrefix(known.value, "container:"); ok {
				return fmt.Errorf("--%s=%s: %s", flag, known.value, besideOf(name))
			}
			return fmt.Errorf("--%s=%s: want %s, or leave it out", flag, known.value, strings.Join(known.want[1:], " or "))
		}
	}
	b.network()
	if f.userns == "private" {
		b.pod.Spec.HostUsers = new(bool)
	}
	if f.runtime != "" {
		b.pod.Spec.RuntimeClassName = &f.runtime
	}
	if f.stopTimeout < 0 {
		return fmt.Errorf("--stop-timeout=%d: want seconds", f.stopTimeout)
	}
	return nil
}

// network has the pod be where --network says.
func (b *podBuilder) network() {
	if b.flags.network == noNetwork {
		b.pod.Annotations[networkAnnotation] = noNetwork
	}
	for _, j := range b.flags.joinings {
		b.pod.Labels[memberPrefix+j.name] = isMember
	}
}

// restarts reads --restart.
func (b *podBuilder) restarts() error {
	known := map[string]corev1.RestartPolicy{
		"": corev1.RestartPolicyNever, "no": corev1.RestartPolicyNever, "on-failure": corev1.RestartPolicyOnFailure,
		"always": corev1.RestartPolicyAlways, "unless-stopped": corev1.RestartPolicyAlways,
	}
	said := b.flags.restart
	most, counted := strings.CutPrefix(said, "on-failure:")
	if counted {
		n, err := strconv.ParseInt(most, 10, 31)
		if err != nil || n < 0 {
			return fmt.Errorf("--restart=%s: %q is no number of restarts", said, most)
		}
		if said = "on-failure"; n > 0 { // docker's 0 is no limit
			b.pod.Annotations[restartsAnnotation] = strconv.FormatInt(n, 10)
		}
	}
	policy, ok := known[said]
	if !ok {
		return fmt.Errorf("--restart=%s: want no, on-failure[:MOST], always or unless-stopped", said)
	}
	if b.flags.remove && policy != corev1.RestartPolicyNever {
		return fmt.Errorf("--restart=%s and --rm exclude each other", b.flags.restart)
	}
	b.pod.Spec.RestartPolicy = policy
	return nil
}

// start is what begins in the container, and how it is asked to end.
func (b *podBuilder) start() error {
	if e := b.flags.entrypoint; e != nil && *e != "" {
		b.c.Command = []string{literal(*e)}
	}
	if b.flags.stopSignal == "" {
		return nil
	}
	name := strings.ToUpper(b.flags.stopSignal)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	signal := corev1.Signal(name)
	b.c.Lifecycle = &corev1.Lifecycle{StopSignal: &signal}
	b.pod.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
	return nil
}

// words are the command: arguments of the image's entrypoint, unless that is
// replaced by none.
func (b *podBuilder) words(command []string) {
	var all []string
	for _, word := range command {
		all = append(all, literal(word))
	}
	if e := b.flags.entrypoint; e != nil && *e == "" {
		b.c.Command = all
		return
	}
	b.c.Args = all
}

// literal protects a text from the expansion of $(NAME) that pods have, and
// command lines have not: there, $$ is one dollar.
func literal(text string) string {
	if !strings.Contains(text, "$(") && !strings.Contains(text, "$$") {
		return text
	}
	return strings.ReplaceAll(text, "$", "$$")
}

// labels puts what cannot be a label of Kubernetes among the annotations.
func (b *podBuilder) labels() error {
	for _, text := range b.flags.annotations {
		name, value, ok := strings.Cut(text, "=")
		if wrong := validation.IsQualifiedName(strings.ToLower(name)); !ok || len(wrong) > 0 {
			return fmt.Errorf("--annotation %q: want NAME=VALUE", text)
		}
		b.pod.Annotations[name] = value
	}
	all := slices.Clone(b.flags.labels)
	for i := len(b.flags.labelFiles) - 1; i >= 0; i-- { // what was typed counts more
		lines, err := namedLines("--label-file", b.flags.labelFiles[i])
		if err != nil {
			return err
		}
		all = append(lines, all...)
	}
	for _, text := range all {
		name, value, _ := strings.Cut(text, "=")
		if wrong := validation.IsQualifiedName(name); len(wrong) > 0 {
			return fmt.Errorf("--label %q: %s", text, strings.Join(wrong, "; "))
		}
		to := b.pod.Labels
		if len(validation.IsValidLabelValue(value)) > 0 {
			to = b.pod.Annotations
		}
		to[name] = value
	}
	return nil
}
