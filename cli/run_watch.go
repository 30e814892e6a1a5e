package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
)

// podState is what somebody who waits for a container wants to know of its pod.
type podState struct {
	running, ended bool
	// started: it has run at some time.
	started  bool
	restarts int
	code     int
	// why is what is to be said about an exit code that is not the command's own.
	why string
	// doomed is why it will not start; mayPass, that it might yet.
	doomed  string
	mayPass bool
}

// look reads a pod with one container.
func look(pod *corev1.Pod) podState {
	var s podState
	s.ended = pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if len(pod.Status.ContainerStatuses) == 1 {
		s.container(&pod.Status.ContainerStatuses[0])
	}
	if s.ended && !s.started {
		s.doomed = sentence(pod.Status.Reason, pod.Status.Message)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			s.doomed, s.mayPass = "no node takes it: "+c.Message, true
		}
	}
	return s
}

// container reads the state of the container.
func (s *podState) container(c *corev1.ContainerStatus) {
	s.restarts = int(c.RestartCount)
	s.running = c.State.Running != nil
	s.started = s.running || c.State.Terminated != nil || c.RestartCount > 0
	t := c.State.Terminated
	if s.ended { // it may have been held back when the pod ended
		t = lastEnd(*c)
	}
	if t != nil {
		s.code = int(t.ExitCode)
		if t.Reason == "StartError" || t.Reason == "ContainerCannotRun" {
			s.code, s.why = startCode(t.Message), strings.TrimSpace(t.Message)
		}
		if t.Reason == "OOMKilled" {
			s.why = "it was killed: it wanted more memory than --memory allows"
		}
	}
	w := c.State.Waiting
	if w == nil {
		return
	}
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError", "RunContainerError", "ImageInspectError":
		s.doomed = sentence(w.Reason, w.Message)
	case "CreateContainerConfigError":
		s.doomed, s.mayPass = sentence(w.Reason, w.Message), true
	}
}

// startCode is what a shell and docker make of a command that does not start.
func startCode(message string) int {
	for _, sign := range []string{"not found", "no such file"} {
		if strings.Contains(message, sign) {
			return exitNotFound
		}
	}
	return exitNoStart
}

func sentence(reason, message string) string {
	if message == "" {
		return reason
	}
	return reason + ": " + strings.TrimSpace(message)
}

// podChange is a pod as it is now; gone says that it was so at its end.
type podChange struct {
	pod  *corev1.Pod
	gone bool
}

// podFollower tells each change of one pod until it has gone or stop is called.
type podFollower struct {
	changes <-chan podChange
	// err is why changes has closed.
	err  error
	stop context.CancelFunc
}

// followPod begins where pod is. A watch that ends is begun anew.
func followPod(ctx context.Context, t client.Transport, pod *corev1.Pod) *podFollower {
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan podChange)
	f := &podFollower{changes: changes, stop: cancel}
	go func() {
		defer close(changes)
		f.err = follow(ctx, t, pod, changes)
	}()
	return f
}

// maxBreaks bounds how often in a row a watch may end without having told anything.
const maxBreaks = 10

func follow(ctx context.Context, t client.Transport, pod *corev1.Pod, to chan<- podChange) error {
	opts := metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", pod.Name).String(),
		ResourceVersion: pod.ResourceVersion,
	}
	for breaks := 0; breaks < maxBreaks; breaks++ {
		w, err := client.Pods.Watch(ctx, t, pod.Namespace, opts)
		if err != nil {
			return err
		}
		gone, err := followOne(ctx, w, pod, to, &opts, &breaks)
		w.Stop()
		if err != nil || gone {
			return err
		}
		now, err := client.Pods.Get(ctx, t, pod.Namespace, pod.Name)
		if apierrors.IsNotFound(err) || err == nil && now.UID != pod.UID {
			return tell(ctx, to, podChange{pod, true})
		}
		if err != nil {
			return err
		}
		opts.ResourceVersion = now.ResourceVersion
		if err := tell(ctx, to, podChange{now, false}); err != nil {
			return err
		}
	}
	return errors.New("the API server ends every watch")
}

// followOne reads one watch to its end.
func followOne(ctx context.Context, w watch.Interface, pod *corev1.Pod, to chan<- podChange, opts *metav1.ListOptions, breaks *int) (gone bool, err error) {
	for e := range w.ResultChan() {
		now, ok := e.Object.(*corev1.Pod)
		if !ok || now.UID != pod.UID {
			continue
		}
		*breaks, opts.ResourceVersion = 0, now.ResourceVersion
		if err := tell(ctx, to, podChange{now, e.Type == watch.Deleted}); err != nil || e.Type == watch.Deleted {
			return true, err
		}
	}
	return false, nil
}

func tell(ctx context.Context, to chan<- podChange, c podChange) error {
	select {
	case to <- c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitEnd waits until the pod has gone.
func (f *podFollower) awaitEnd(limit time.Duration) error {
	late := time.After(limit)
	for {
		select {
		case c, ok := <-f.changes:
			if !ok {
				return f.err
			}
			if c.gone {
				return nil
			}
		case <-late:
			return fmt.Errorf("it has not gone after %s; sampan why pod says what it waits for", limit)
		}
	}
}

// hollowLabel marks nodes that only pretend.
const hollowLabel = "hollow.sampan.dev/node"

// localNode is the node that this machine is; nil when it is none of the cluster's,
// or we may not ask.
func (s *server) localNode(ctx context.Context) (*corev1.Node, error) {
	nodes, _, err := client.Nodes.List(ctx, s, "", metav1.ListOptions{})
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, unanswered(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil //nolint:nilerr // not a Linux that has nodes
	}
	nodes = slices.DeleteFunc(nodes, func(n *corev1.Node) bool {
		return n.Labels[hollowLabel] != "" || n.Status.NodeInfo.BootID != strings.TrimSpace(string(boot))
	})
	if len(nodes) == 0 {
		return nil, nil
	}
	// Several nodes of one machine are in network namespaces of their own.
	return nodes[max(0, slices.IndexFunc(nodes, hasOurAddress))], nil
}

// hasOurAddress says whether a node's address is one of ours.
func hasOurAddress(n *corev1.Node) bool {
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		return a.Type == corev1.NodeInternalIP && slices.ContainsFunc(own, func(o net.Addr) bool {
			return strings.HasPrefix(o.String(), a.Address+"/")
		})
	})
}
