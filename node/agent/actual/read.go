package actual

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Reader reads pods from an engine. It remembers the status of exited
// containers, which can't change any more, so that a crash-looping pod costs
// one status call a restart. Not safe for concurrent use: a pod's owner has
// its own.
type Reader struct {
	engine cri.Engine
	exited map[string]Container
}

// NewReader returns a Reader of one pod.
func NewReader(engine cri.Engine) *Reader {
	return &Reader{engine: engine, exited: map[string]Container{}}
}

// Read returns what the engine holds for the pod with that UID: an empty Pod
// when it knows nothing.
func (r *Reader) Read(ctx context.Context, uid string) (*Pod, error) {
	selector := map[string]string{LabelPodUID: uid}
	p := &Pod{UID: uid}
	boxes, err := r.engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{Filter: &rt.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes of pod %q: %w", uid, err)
	}
	for _, b := range boxes.GetItems() {
		if err := r.sandbox(ctx, p, b.GetId()); err != nil {
			return nil, err
		}
	}
	list, err := r.engine.ListContainers(ctx, &rt.ListContainersRequest{Filter: &rt.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return nil, fmt.Errorf("list containers of pod %q: %w", uid, err)
	}
	alive := map[string]Container{}
	for _, item := range list.GetContainers() {
		c, err := r.container(ctx, item)
		if cri.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.State == Exited {
			alive[c.ID] = c
		}
		p.Containers = append(p.Containers, c)
	}
	r.exited = alive
	p.sort()
	return p, nil
}

func (p *Pod) sort() {
	slices.SortStableFunc(p.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Attempt, a.Attempt))
	})
	slices.SortStableFunc(p.Containers, func(a, b Container) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Attempt, a.Attempt))
	})
}

func (r *Reader) sandbox(ctx context.Context, p *Pod, id string) error {
	got, err := r.engine.PodSandboxStatus(ctx, &rt.PodSandboxStatusRequest{PodSandboxId: id})
	if cri.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("status of sandbox %q: %w", id, err)
	}
	s := got.GetStatus()
	p.Name, p.Namespace = s.GetMetadata().GetName(), s.GetMetadata().GetNamespace()
	p.Sandboxes = append(p.Sandboxes, fromSandbox(s))
	return nil
}

func fromSandbox(s *rt.PodSandboxStatus) Sandbox {
	b := Sandbox{
		ID: s.GetId(), Attempt: s.GetMetadata().GetAttempt(), Created: nanos(s.GetCreatedAt()),
		Ready:  s.GetState() == rt.PodSandboxState_SANDBOX_READY,
		Labels: s.GetLabels(),
	}
	b.HostNet = s.GetLinux().GetNamespaces().GetOptions().GetNetwork() == rt.NamespaceMode_NODE
	if b.HostNet {
		return b
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		b.IPs = append(b.IPs, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		b.IPs = append(b.IPs, more.GetIp())
	}
	return b
}

func (r *Reader) container(ctx context.Context, item *rt.Container) (Container, error) {
	// What has ended stays so, also while the engine, which is removing it, is not sure.
	if known, ok := r.exited[item.GetId()]; ok {
		return known, nil
	}
	got, err := r.engine.ContainerStatus(ctx, &rt.ContainerStatusRequest{ContainerId: item.GetId()})
	if err != nil {
		return Container{}, fmt.Errorf("status of container %q: %w", item.GetId(), err)
	}
	c := fromContainer(got.GetStatus())
	c.SandboxID = item.GetPodSandboxId()
	return c, nil
}

func fromContainer(s *rt.ContainerStatus) Container {
	c := Container{
		ID: s.GetId(), Name: s.GetMetadata().GetName(), State: state(s.GetState()),
		Created: nanos(s.GetCreatedAt()), Started: nanos(s.GetStartedAt()), Finished: nanos(s.GetFinishedAt()),
		ExitCode: s.GetExitCode(), Reason: s.GetReason(), Message: s.GetMessage(),
		Image: cmp.Or(s.GetImage().GetUserSpecifiedImage(), s.GetImage().GetImage()), ImageID: s.GetImageRef(),
		Hash: s.GetAnnotations()[AnnotationHash], LogPath: s.GetLogPath(),
		FallbackToLogs: s.GetAnnotations()[AnnotationTerminationPolicy] == "FallbackToLogsOnError",
		Attempt:        int32(s.GetMetadata().GetAttempt()),
	}
	if n, err := strconv.ParseInt(s.GetAnnotations()[AnnotationRestartCount], 10, 32); err == nil {
		c.Attempt = int32(n)
	}
	path := s.GetAnnotations()[AnnotationTerminationPath]
	for _, m := range s.GetMounts() {
		if path != "" && m.GetContainerPath() == path {
			c.TerminationFile = m.GetHostPath()
		}
	}
	if u := s.GetUser().GetLinux(); u != nil {
		c.User = &User{UID: u.GetUid(), GID: u.GetGid(), Supplemental: u.GetSupplementalGroups()}
	}
	return c
}

func state(s rt.ContainerState) State {
	switch s {
	case rt.ContainerState_CONTAINER_CREATED:
		return Created
	case rt.ContainerState_CONTAINER_RUNNING:
		return Running
	case rt.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

// nanos is the CRI's time: nanoseconds since 1970, 0 for never.
func nanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
