package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// runLabel marks the pods that sampan run has made; its value is their name.
// runCommandAnnotation is what the person typed behind the image, for ps.
const (
	runLabel             = "sampan.dev/run"
	runCommandAnnotation = "sampan.dev/run-command"
	// removeAnnotation has the cluster remove the pod when it has ended.
	removeAnnotation = "sampan.dev/remove-when-ended"
)

// podPlace is what podOf must know of the machine.
type podPlace struct {
	// volumes is the directory of those that have a name.
	volumes string
	// note tells the person what a word does not do here; nil for nobody.
	note func(text string)
}

// podOf is the pod that run's words mean. It asks nobody.
func podOf(f runFlags, image string, command []string, place podPlace) (*corev1.Pod, error) {
	name := f.name
	if name == "" {
		name = madeUpName()
	}
	if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
		return nil, fmt.Errorf("--name %q: want lower-case letters, digits and -, at most 63", name)
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
			Hostname: f.hostname, SecurityContext: &corev1.PodSecurityContext{},
		},
	}}
	if f.detach && f.remove { // else we wait for the end, and remove it
		b.pod.Annotations[removeAnnotation] = "true"
	}
	b.c = &corev1.Container{
		Name: name, Image: image, WorkingDir: f.workdir, TTY: f.tty, Stdin: f.interactive,
		// Who runs it is the one client, and gets what it prints from its start.
		StdinOnce:       !f.detach,
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
	restarts := map[string]corev1.RestartPolicy{
		"": corev1.RestartPolicyNever, "no": corev1.RestartPolicyNever, "on-failure": corev1.RestartPolicyOnFailure,
		"always": corev1.RestartPolicyAlways, "unless-stopped": corev1.RestartPolicyAlways,
	}
	policy, ok := restarts[f.restart]
	if !ok {
		return fmt.Errorf("--restart=%s: want no, on-failure, always or unless-stopped; restarts are not counted", f.restart)
	}
	b.pod.Spec.RestartPolicy = policy
	pulls := map[string]corev1.PullPolicy{
		"": corev1.PullIfNotPresent, "missing": corev1.PullIfNotPresent, "always": corev1.PullAlways, "never": corev1.PullNever,
	}
	if b.c.ImagePullPolicy, ok = pulls[f.pull]; !ok {
		return fmt.Errorf("--pull=%s: want missing, always or never", f.pull)
	}
	for flag, value := range map[string]string{"network": f.network, "pid": f.pid, "ipc": f.ipc} {
		if value != "" && value != "host" && (flag != "network" || value != "bridge" && value != "default") {
			return fmt.Errorf("--%s=%s: want host, or leave it out", flag, value)
		}
	}
	if f.stopTimeout < 0 {
		return fmt.Errorf("--stop-timeout=%d: want seconds", f.stopTimeout)
	}
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

// environment reads --env-file and --env. Unlike a pod's variables, a person's are
// what they are.
func (b *podBuilder) environment() error {
	vars, err := variables(b.flags.env, b.flags.envFiles)
	for _, v := range vars {
		v.Value = literal(v.Value)
		b.c.Env = append(b.c.Env, v)
	}
	return err
}

// variables are those of files, and then those of --env, which count more.
func variables(env, files []string) ([]corev1.EnvVar, error) {
	var lines []string
	for _, file := range files {
		read, err := envLines(file)
		if err != nil {
			return nil, err
		}
		lines = append(lines, read...)
	}
	var vars []corev1.EnvVar
	at := map[string]int{}
	for _, line := range append(lines, env...) {
		name, value, ok := strings.Cut(line, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: want NAME=VALUE", line)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		v := corev1.EnvVar{Name: name, Value: value}
		if i, known := at[name]; known {
			vars[i] = v
			continue
		}
		at[name] = len(vars)
		vars = append(vars, v)
	}
	return vars, nil
}

// maxEnvFile bounds an --env-file in bytes.
const maxEnvFile = 1 << 20

// envLines reads a file of NAME=VALUE lines as docker does: # begins a comment
// line, a bare NAME takes its value from here, and nothing is unquoted.
func envLines(file string) ([]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	if len(raw) > maxEnvFile {
		return nil, fmt.Errorf("--env-file %q: more than %d bytes", file, maxEnvFile)
	}
	var lines []string
	for n, line := range strings.Split(strings.TrimPrefix(string(raw), "\ufeff"), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("--env-file %s:%d: %q is no name of a variable", file, n+1, name)
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// labels puts what cannot be a label of Kubernetes among the annotations.
func (b *podBuilder) labels() error {
	for _, text := range b.flags.labels {
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

// limits are --memory and --cpus. Nothing is reserved, as docker reserves nothing.
func (b *podBuilder) limits() error {
	limits, requests := corev1.ResourceList{}, corev1.ResourceList{}
	if b.flags.memory != "" {
		n, err := bytesOf(b.flags.memory)
		if err != nil {
			return fmt.Errorf("--memory %q: %w", b.flags.memory, err)
		}
		limits[corev1.ResourceMemory], requests[corev1.ResourceMemory] = n, resource.Quantity{}
	}
	if b.flags.cpus != "" {
		n, err := strconv.ParseFloat(b.flags.cpus, 64)
		if err != nil || n <= 0 || n > 100_000 {
			return fmt.Errorf("--cpus %q: want a number such as 1.5", b.flags.cpus)
		}
		limits[corev1.ResourceCPU], requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(n*1000+0.5), resource.DecimalSI), resource.Quantity{}
	}
	if len(limits) > 0 {
		b.c.Resources = corev1.ResourceRequirements{Limits: limits, Requests: requests}
	}
	return nil
}

// bytesOf reads docker's 512m, where m is a MiB, or Kubernetes' 512Mi.
func bytesOf(text string) (resource.Quantity, error) {
	units := map[string]int{"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
	digits := strings.TrimRight(text, "bkmgtBKMGT")
	unit := strings.ToLower(text[len(digits):])
	if len(unit) == 2 {
		unit = strings.TrimSuffix(unit, "b")
	}
	shift, ok := units[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if ok && err == nil && n > 0 && n < 1<<40 {
		return *resource.NewQuantity(int64(n*float64(int64(1)<<shift)), resource.BinarySI), nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() <= 0 {
		return q, fmt.Errorf("want a size such as 512m or 1Gi")
	}
	return q, nil
}

// security are privileges, capabilities, sysctls and groups. The user is not here:
// its name may be one of the image.
func (b *podBuilder) security() error {
	sc := b.c.SecurityContext
	if b.flags.privileged {
		sc.Privileged = &b.flags.privileged
	}
	if b.flags.readOnly {
		sc.ReadOnlyRootFilesystem = &b.flags.readOnly
	}
	if err := b.options(); err != nil {
		return err
	}
	if len(b.flags.capAdd)+len(b.flags.capDrop) > 0 {
		sc.Capabilities = &corev1.Capabilities{Add: capabilities(b.flags.capAdd), Drop: capabilities(b.flags.capDrop)}
	}
	for _, text := range b.flags.sysctl {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--sysctl %q: want NAME=VALUE", text)
		}
		b.pod.Spec.SecurityContext.Sysctls = append(b.pod.Spec.SecurityContext.Sysctls, corev1.Sysctl{Name: name, Value: value})
	}
	for _, text := range b.flags.groups {
		id, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("--group-add %q: want a number", text)
		}
		b.pod.Spec.SecurityContext.SupplementalGroups = append(b.pod.Spec.SecurityContext.SupplementalGroups, int64(id)) //nolint:gosec // 31 bits
	}
	return nil
}

// options reads --security-opt, and --init: the process that a pod's containers share
// when they share process IDs does what docker's does.
func (b *podBuilder) options() error {
	if b.flags.init {
		b.pod.Spec.ShareProcessNamespace = &b.flags.init
	}
	for _, text := range b.flags.securityOpts {
		name, value, _ := strings.Cut(strings.Replace(text, ":", "=", 1), "=")
		switch {
		case name == "no-new-privileges" && (value == "" || value == "true"):
			b.c.SecurityContext.AllowPrivilegeEscalation = new(bool)
		case name == "no-new-privileges" && value == "false":
		case name == "seccomp" && value == "unconfined":
			b.c.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		default:
			return fmt.Errorf("--security-opt %q: want no-new-privileges or seccomp=unconfined", text)
		}
	}
	return nil
}

func capabilities(names []string) []corev1.Capability {
	var all []corev1.Capability
	for _, n := range names {
		all = append(all, corev1.Capability(strings.TrimPrefix(strings.ToUpper(n), "CAP_")))
	}
	return all
}

// names are --add-host and --dns.
func (b *podBuilder) names() error {
	for _, text := range b.flags.addHosts {
		host, ip, ok := strings.Cut(text, ":")
		if !ok {
			host, ip, ok = strings.Cut(text, "=")
		}
		if !ok || host == "" || ip == "" {
			return fmt.Errorf("--add-host %q: want HOST:IP", text)
		}
		b.pod.Spec.HostAliases = append(b.pod.Spec.HostAliases, corev1.HostAlias{IP: strings.Trim(ip, "[]"), Hostnames: []string{host}})
	}
	if len(b.flags.dns)+len(b.flags.dnsSearch)+len(b.flags.dnsOptions) == 0 {
		return nil
	}
	if len(b.flags.dns) > 0 {
		b.pod.Spec.DNSPolicy = corev1.DNSNone
	}
	dns := &corev1.PodDNSConfig{Nameservers: b.flags.dns, Searches: b.flags.dnsSearch}
	for _, text := range b.flags.dnsOptions {
		name, value, ok := strings.Cut(text, ":")
		o := corev1.PodDNSConfigOption{Name: name}
		if ok {
			o.Value = &value
		}
		dns.Options = append(dns.Options, o)
	}
	b.pod.Spec.DNSConfig = dns
	return nil
}
