package spec

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
)

// Make is all that one container's configuration is made from.
type Make struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	// Attempt is the restart count that the container gets.
	Attempt int32
	Node    Node
	// Env is the resolved environment.
	Env []Var
	// Image is what the engine knows of the image.
	Image Image
	// Mounts are the volumes' and the managed files' mounts.
	Mounts []*rt.Mount
	// Target is the id of the container whose processes an ephemeral container
	// wants to see, "" for none.
	Target string
	// Groups are those that the pod's volumes ask for.
	Groups []int64
}

// Image is what matters of a pulled image.
type Image struct {
	// Ref is what the engine resolved the name to.
	Ref string
	// User is set when the image names a user that isn't a number; UID when it
	// is one.
	User string
	UID  *int64
	// Size is in bytes.
	Size uint64
}

// Config is the container's configuration. It fails when the pod asks for what
// may not be: such errors are the pod's (CreateContainerConfigError).
func (m Make) Config() (*rt.ContainerConfig, error) {
	if err := m.checkNonRoot(); err != nil {
		return nil, err
	}
	security, err := m.security()
	if err != nil {
		return nil, err
	}
	c := m.Container
	vars := Lookup(m.Env)
	cfg := &rt.ContainerConfig{
		Metadata:    &rt.ContainerMetadata{Name: c.Name, Attempt: uint32(m.Attempt)},
		Image:       &rt.ImageSpec{Image: m.Image.Ref, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, vars),
		Args:        expandAll(c.Args, vars),
		WorkingDir:  c.WorkingDir,
		Mounts:      m.Mounts,
		Labels:      m.labels(),
		Annotations: m.annotations(),
		LogPath:     LogPath(c.Name, m.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		StopSignal:  stopSignal(c),
		Linux:       &rt.LinuxContainerConfig{Resources: ContainerResources(m.Pod, c, m.Node), SecurityContext: security},
	}
	for _, v := range m.Env {
		cfg.Envs = append(cfg.Envs, &rt.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	return cfg, nil
}

func (m Make) labels() map[string]string {
	return map[string]string{
		actual.LabelPodName:       m.Pod.Name,
		actual.LabelPodNamespace:  m.Pod.Namespace,
		actual.LabelPodUID:        string(m.Pod.UID),
		actual.LabelContainerName: m.Container.Name,
	}
}

func (m Make) annotations() map[string]string {
	return map[string]string{
		actual.AnnotationHash:              Hash(m.Container),
		actual.AnnotationRestartCount:      strconv.Itoa(int(m.Attempt)),
		actual.AnnotationTerminationPath:   m.Container.TerminationMessagePath,
		actual.AnnotationTerminationPolicy: string(m.Container.TerminationMessagePolicy),
		actual.AnnotationGracePeriod:       strconv.FormatInt(Grace(m.Pod), 10),
	}
}

func expandAll(list []string, vars func(string) (string, bool)) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, Expand(s, vars))
	}
	return out
}

func stopSignal(c *corev1.Container) rt.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return rt.Signal_SIGNAL_RUNTIME_DEFAULT
	}
	return rt.Signal(rt.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)])
}

// Propagation is the CRI's word for a mount's propagation.
func Propagation(mode *corev1.MountPropagationMode) rt.MountPropagation {
	if mode == nil {
		return rt.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *mode {
	case corev1.MountPropagationHostToContainer:
		return rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return rt.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return rt.MountPropagation_PROPAGATION_PRIVATE
}
