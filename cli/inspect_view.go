package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerView is a container in docker's words, and its pod in Kubernetes' own.
type containerView struct {
	ID              string `json:"Id"`
	Created         time.Time
	Path            string
	Args            []string
	State           stateView
	Image           string
	Name            string
	RestartCount    int
	Platform        string
	Mounts          []mountView
	HostConfig      hostView
	Config          configView
	NetworkSettings networkView

	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            corev1.PodSpec    `json:"spec"`
	PodStatus       corev1.PodStatus  `json:"status"`
}

// stateView is how a container is.
type stateView struct {
	Status                                       string
	Running, Paused, Restarting, OOMKilled, Dead bool
	Pid, ExitCode                                int
	Error                                        string
	StartedAt, FinishedAt                        time.Time
	Health                                       *healthView `json:",omitempty"`
}

// mountView is something that is mounted into a container.
type mountView struct {
	Type              string
	Name              string
	Source            string
	Destination, Mode string
	RW                bool
	Propagation       string
}

// hostView is what a container has of the machine.
type hostView struct {
	Binds         []string
	NetworkMode   string
	PortBindings  map[string][]portView
	RestartPolicy struct {
		Name              string
		MaximumRetryCount int
	}
	AutoRemove, Privileged, ReadonlyRootfs bool
	CapAdd, CapDrop                        []corev1.Capability
	ExtraHosts, Dns                        []string
	PidMode, IpcMode                       string
	Memory, MemoryReservation, NanoCpus    int64
	Init                                   bool
}

// portView is where a port of the machine is.
type portView struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// configView is what was asked for.
type configView struct {
	Hostname, User            string
	ExposedPorts              map[string]struct{} `json:",omitempty"`
	Tty, OpenStdin, StdinOnce bool
	Env, Cmd                  []string
	Image, WorkingDir         string
	Entrypoint                []string
	Labels                    map[string]string
	StopSignal                string           `json:",omitempty"`
	StopTimeout               *int64           `json:",omitempty"`
	Healthcheck               *healthcheckView `json:",omitempty"`
}

// networkView is where a container is to be reached.
type networkView struct {
	IPAddress, GlobalIPv6Address string
	Ports                        map[string][]portView
	Networks                     map[string]struct{ IPAddress, GlobalIPv6Address string }
}

// shown is a container as inspect shows it: what its image gives it is added where the
// image is at hand, and its process where it is on this machine.
func (p Program) shown(ctx context.Context, s *Settings, pod *corev1.Pod) containerView {
	v := viewOf(pod, time.Now())
	if v.State.Running {
		if pid, err := p.firstProcess(ctx, s, pod); err == nil {
			v.State.Pid = pid
		}
	}
	store, err := s.images()
	if err != nil {
		return v
	}
	img, err := store.Get(pod.Spec.Containers[0].Image)
	if err != nil {
		return v
	}
	v.Image = img.ID
	c, is := &v.Config, img.Config.Config
	if len(c.Entrypoint) == 0 {
		if c.Entrypoint = is.Entrypoint; len(c.Cmd) == 0 {
			c.Cmd = is.Cmd
		}
	}
	c.Env = mergedEnv(is.Env, c.Env)
	c.WorkingDir, c.User, c.StopSignal = cmp.Or(c.WorkingDir, is.WorkingDir), cmp.Or(c.User, is.User), cmp.Or(c.StopSignal, is.StopSignal)
	labels := maps.Clone(is.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	for port := range is.ExposedPorts {
		v.expose(port)
	}
	v.commandLine()
	return v
}

// mergedEnv are an image's variables, with the container's own in their places.
func mergedEnv(base, own []string) []string {
	has := map[string]bool{}
	for _, kv := range own {
		name, _, _ := strings.Cut(kv, "=")
		has[name] = true
	}
	all := []string{}
	for _, kv := range base {
		if name, _, _ := strings.Cut(kv, "="); !has[name] {
			all = append(all, kv)
		}
	}
	return append(all, own...)
}

// viewOf is what a pod alone tells of its container.
func viewOf(pod *corev1.Pod, now time.Time) containerView {
	pod = pod.DeepCopy()
	pod.ManagedFields = nil
	c := pod.Spec.Containers[0]
	v := containerView{
		ID: idOf(pod), Created: pod.CreationTimestamp.UTC(), Name: "/" + pod.Name, Image: c.Image, Platform: "linux",
		State: stateViewOf(pod, now), RestartCount: look(pod).restarts, Mounts: mountsOf(pod), Config: configOf(pod),
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: pod.ObjectMeta, Spec: pod.Spec, PodStatus: pod.Status,
	}
	v.HostConfig = hostOf(pod, v.Mounts)
	v.NetworkSettings = networkOf(pod, v.HostConfig)
	for port := range v.HostConfig.PortBindings {
		v.expose(port)
	}
	v.commandLine()
	return v
}

func (v *containerView) expose(port string) {
	if v.Config.ExposedPorts == nil {
		v.Config.ExposedPorts = map[string]struct{}{}
	}
	v.Config.ExposedPorts[port] = struct{}{}
	if _, known := v.NetworkSettings.Ports[port]; !known {
		v.NetworkSettings.Ports[port] = nil
	}
}

// commandLine is what is started, in one.
func (v *containerView) commandLine() {
	all := append(append([]string{}, v.Config.Entrypoint...), v.Config.Cmd...)
	v.Path, v.Args = "", []string{}
	if len(all) > 0 {
		v.Path, v.Args = all[0], all[1:]
	}
}

func stateViewOf(pod *corev1.Pod, now time.Time) stateView {
	s, word := look(pod), stateOf(pod)
	v := stateView{Status: word, Running: s.running, Paused: word == "paused", Restarting: word == "restarting", ExitCode: s.code, Error: s.why}
	if len(pod.Status.ContainerStatuses) == 1 {
		c := pod.Status.ContainerStatuses[0]
		if last := lastEnd(c); last != nil {
			v.StartedAt, v.FinishedAt, v.OOMKilled = last.StartedAt.UTC(), last.FinishedAt.UTC(), last.Reason == "OOMKilled"
		}
		if c.State.Running != nil {
			v.StartedAt = c.State.Running.StartedAt.UTC()
		}
	}
	if h := healthOf(pod, now); h != healthNone {
		v.Health = &healthView{Status: h, Log: []checkView{}}
	}
	return v
}

func mountsOf(pod *corev1.Pod) []mountView {
	all := []mountView{}
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		v := mountView{Destination: m.MountPath, RW: !m.ReadOnly, Propagation: "rprivate", Mode: "rw"}
		if m.ReadOnly {
			v.Mode = "ro"
		}
		for i := range pod.Spec.Volumes {
			if pod.Spec.Volumes[i].Name == m.Name {
				v.of(&pod.Spec.Volumes[i].VolumeSource)
			}
		}
		all = append(all, v)
	}
	return all
}

// of says what a volume is in docker.
func (v *mountView) of(source *corev1.VolumeSource) {
	v.Type = "volume"
	switch {
	case source.HostPath != nil && path.Base(path.Dir(source.HostPath.Path)) == "volumes":
		v.Name, v.Source = path.Base(source.HostPath.Path), source.HostPath.Path
	case source.HostPath != nil:
		v.Type, v.Source = "bind", source.HostPath.Path
	case source.EmptyDir != nil && source.EmptyDir.Medium == corev1.StorageMediumMemory:
		v.Type = "tmpfs"
	case source.Image != nil:
		v.Type, v.Source = "image", source.Image.Reference
	}
}

func hostOf(pod *corev1.Pod, mounts []mountView) hostView {
	c, sc := pod.Spec.Containers[0], pod.Spec.Containers[0].SecurityContext
	h := hostView{
		PortBindings: map[string][]portView{}, AutoRemove: pod.Annotations[removeAnnotation] == "true",
		Memory: c.Resources.Limits.Memory().Value(), MemoryReservation: c.Resources.Requests.Memory().Value(), NanoCpus: c.Resources.Limits.Cpu().MilliValue() * 1e6,
		Init: pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace, IpcMode: "private",
	}
	h.NetworkMode = networksOfPod(pod)[0]
	if pod.Spec.HostPID {
		h.PidMode = "host"
	}
	if pod.Spec.HostIPC {
		h.IpcMode = "host"
	}
	h.RestartPolicy.Name = map[corev1.RestartPolicy]string{
		corev1.RestartPolicyNever: "no", corev1.RestartPolicyOnFailure: "on-failure", corev1.RestartPolicyAlways: "always"}[pod.Spec.RestartPolicy]
	h.RestartPolicy.MaximumRetryCount, _ = strconv.Atoi(pod.Annotations[restartsAnnotation]) // none is 0
	for _, m := range mounts {
		if m.Source != "" {
			h.Binds = append(h.Binds, cmp.Or(m.Name, m.Source)+":"+m.Destination+":"+m.Mode)
		}
	}
	for _, p := range c.Ports {
		if p.HostPort > 0 {
			key := fmt.Sprintf("%d/%s", p.ContainerPort, strings.ToLower(string(p.Protocol)))
			h.PortBindings[key] = append(h.PortBindings[key], portView{p.HostIP, strconv.Itoa(int(p.HostPort))})
		}
	}
	if sc != nil {
		h.Privileged, h.ReadonlyRootfs = sc.Privileged != nil && *sc.Privileged, sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
		if sc.Capabilities != nil {
			h.CapAdd, h.CapDrop = sc.Capabilities.Add, sc.Capabilities.Drop
		}
	}
	for _, a := range pod.Spec.HostAliases {
		for _, name := range a.Hostnames {
			h.ExtraHosts = append(h.ExtraHosts, name+":"+a.IP)
		}
	}
	if pod.Spec.DNSConfig != nil {
		h.Dns = pod.Spec.DNSConfig.Nameservers
	}
	return h
}

func configOf(pod *corev1.Pod) configView {
	c := pod.Spec.Containers[0]
	v := configView{
		Hostname: hostnameOf(pod), Tty: c.TTY, OpenStdin: c.Stdin, StdinOnce: c.StdinOnce, Cmd: c.Args, Image: c.Image,
		WorkingDir: c.WorkingDir, Entrypoint: c.Command, Labels: withoutNetworks(pod.Labels), StopTimeout: pod.Spec.TerminationGracePeriodSeconds, Env: []string{},
	}
	delete(v.Labels, runLabel)
	for _, e := range c.Env {
		v.Env = append(v.Env, e.Name+"="+plain(e.Value))
	}
	if sc := c.SecurityContext; sc != nil && sc.RunAsUser != nil {
		v.User = strconv.FormatInt(*sc.RunAsUser, 10)
		if sc.RunAsGroup != nil {
			v.User += ":" + strconv.FormatInt(*sc.RunAsGroup, 10)
		}
	}
	v.Healthcheck = healthcheckOf(pod)
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		v.StopSignal = string(*c.Lifecycle.StopSignal)
	}
	return v
}

// hostnameOf is what a container calls itself.
func hostnameOf(pod *corev1.Pod) string {
	if pod.Spec.HostnameOverride != nil {
		return *pod.Spec.HostnameOverride
	}
	return cmp.Or(pod.Spec.Hostname, pod.Name)
}

// plain is what literal has protected.
func plain(text string) string {
	if literal(strings.ReplaceAll(text, "$$", "$")) == text {
		return strings.ReplaceAll(text, "$$", "$")
	}
	return text
}

func networkOf(pod *corev1.Pod, h hostView) networkView {
	n := networkView{Ports: map[string][]portView{}, Networks: map[string]struct{ IPAddress, GlobalIPv6Address string }{}}
	maps.Copy(n.Ports, h.PortBindings)
	for _, ip := range pod.Status.PodIPs {
		if strings.Contains(ip.IP, ":") {
			n.GlobalIPv6Address = cmp.Or(n.GlobalIPv6Address, ip.IP)
		} else {
			n.IPAddress = cmp.Or(n.IPAddress, ip.IP)
		}
	}
	for _, name := range networksOfPod(pod) {
		n.Networks[name] = struct{ IPAddress, GlobalIPv6Address string }{n.IPAddress, n.GlobalIPv6Address}
	}
	return n
}
