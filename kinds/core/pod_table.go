package core

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// nodeUnreachable is the status reason of a pod whose node has gone silent.
const nodeUnreachable = "NodeLost"

func podRow(p *corev1.Pod, now time.Time) []any {
	s := summarize(p)
	restarts := strconv.Itoa(s.restarts)
	if s.restarts != 0 && !s.lastRestart.IsZero() {
		restarts = fmt.Sprintf("%d (%s ago)", s.restarts, kinds.Age(s.lastRestart, now))
	}
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return []any{p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.reason, restarts, kinds.Created(p, now),
		orNone(ip), orNone(p.Spec.NodeName), orNone(p.Status.NominatedNodeName), readinessGates(p)}
}

func orNone(s string) string {
	if s == "" {
		return kinds.None
	}
	return s
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return kinds.None
	}
	open := 0
	for _, gate := range p.Spec.ReadinessGates {
		if c := condition(p, gate.ConditionType); c != nil && c.Status == corev1.ConditionTrue {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// condition is the first condition of the type, or nil.
func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// summary is a pod in one line, as it is told while its statuses are read.
type summary struct {
	reason       string
	ready, total int
	restarts     int
	lastRestart  metav1.Time
}

// count adds a container's restarts.
func (s *summary) count(c *corev1.ContainerStatus) {
	s.restarts += int(c.RestartCount)
	if last := c.LastTerminationState.Terminated; last != nil && s.lastRestart.Before(&last.FinishedAt) {
		s.lastRestart = last.FinishedAt
	}
}

func summarize(p *corev1.Pod) summary {
	s := summary{reason: string(p.Status.Phase), total: len(p.Spec.Containers)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := s.readInit(p)
	initialized := condition(p, corev1.PodInitialized)
	if sidecars != nil || (initialized != nil && initialized.Status == corev1.ConditionTrue) {
		if sidecars == nil {
			sidecars = sidecarRestarts(p)
		}
		s.restarts, s.lastRestart = sidecars.restarts, sidecars.lastRestart
		s.readMain(p)
	}
	if p.DeletionTimestamp != nil {
		s.reason = deletingReason(p, s.reason)
	}
	return s
}

func deletingReason(p *corev1.Pod, reason string) string {
	if p.Status.Reason == nodeUnreachable {
		return "Unknown"
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return reason
	}
	return "Terminating"
}

// readInit reads the init containers up to the first that is not done. It
// returns the restarts of the sidecars among them, or nil while the pod is
// still initializing.
func (s *summary) readInit(p *corev1.Pod) *summary {
	sidecar := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if Sidecar(&p.Spec.InitContainers[i]) {
			sidecar[p.Spec.InitContainers[i].Name] = true
			s.total++
		}
	}
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.count(c)
		if done := c.State.Terminated; done != nil && done.ExitCode == 0 {
			continue
		}
		if sidecar[c.Name] && kinds.Deref(c.Started) {
			if c.Ready {
				s.ready++
			}
			continue
		}
		s.reason = initReason(c, i, len(p.Spec.InitContainers))
		return nil
	}
	return sidecarRestarts(p)
}

func sidecarRestarts(p *corev1.Pod) *summary {
	restarts := &summary{}
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		for j := range p.Spec.InitContainers {
			if p.Spec.InitContainers[j].Name == c.Name && Sidecar(&p.Spec.InitContainers[j]) {
				restarts.count(c)
			}
		}
	}
	return restarts
}

func initReason(c *corev1.ContainerStatus, done, of int) string {
	switch {
	case c.State.Terminated != nil:
		return "Init:" + exitReason(c.State.Terminated)
	case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
		return "Init:" + c.State.Waiting.Reason
	}
	return fmt.Sprintf("Init:%d/%d", done, of)
}

func exitReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

// readMain reads the containers from the last to the first, so that the first
// one with something to say has the word.
func (s *summary) readMain(p *corev1.Pod) {
	running, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.count(c)
		switch {
		case c.State.Waiting != nil && c.State.Waiting.Reason != "":
			s.reason = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			s.reason = exitReason(c.State.Terminated)
			if c.State.Terminated.ExitCode != 0 {
				failure = s.reason
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason != "Completed" {
		return
	}
	ready := false
	for i := range p.Status.Conditions {
		ready = ready || (p.Status.Conditions[i].Type == corev1.PodReady && p.Status.Conditions[i].Status == corev1.ConditionTrue)
	}
	switch {
	case running && ready:
		s.reason = "Running"
	case failure != "":
		s.reason = failure
	case running:
		s.reason = "NotReady"
	}
}
