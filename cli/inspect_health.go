package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/client"
)

// healthView is how a container's checks went, in docker's words.
type healthView struct {
	Status        string
	FailingStreak int
	Log           []checkView
}

// checkView is a check that has failed; of those that pass a node tells nothing. ExitCode is
// 1, docker's word for a check that says unhealthy, whatever it has ended with.
type checkView struct {
	Start, End time.Time
	ExitCode   int
	Output     string

	times int
}

// healthcheckView is what is checked, with docker's durations: nanoseconds.
type healthcheckView struct {
	Test                           []string
	Interval, Timeout, StartPeriod time.Duration
	Retries                        int32
}

// maxChecks is how many checks are told of, as in docker.
const maxChecks = 5

// count says how often checks have failed in a row, of one that is not well.
func (h *healthView) count() {
	if h.Status != healthy && len(h.Log) > 0 {
		h.FailingStreak = h.Log[len(h.Log)-1].times
	}
}

// checks are the checks of a container that have failed, the newest last.
func (s *server) checks(ctx context.Context, pod *corev1.Pod) ([]checkView, error) {
	list, _, err := client.Events.List(ctx, s, pod.Namespace, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.uid": string(pod.UID), "reason": "Unhealthy"}.String(),
	})
	all := []checkView{}
	for _, e := range list {
		output := e.Message
		if _, said, ok := strings.Cut(output, " failed: "); ok {
			output = said
		}
		at := told(e).UTC()
		all = append(all, checkView{Start: at, End: at, ExitCode: 1, Output: output, times: int(max(e.Count, 1))})
	}
	slices.SortStableFunc(all, func(a, b checkView) int { return a.End.Compare(b.End) })
	return all[max(0, len(all)-maxChecks):], err
}

// healthcheckOf is what --health-cmd or the image has asked for, nil for nothing.
func healthcheckOf(pod *corev1.Pod) *healthcheckView {
	probe := pod.Spec.Containers[0].ReadinessProbe
	if probe == nil || probe.Exec == nil {
		return nil
	}
	v := &healthcheckView{
		Interval: time.Duration(probe.PeriodSeconds) * time.Second, Timeout: time.Duration(probe.TimeoutSeconds) * time.Second, Retries: probe.FailureThreshold,
	}
	v.StartPeriod, _ = time.ParseDuration(pod.Annotations[healthPeriodAnnotation]) // none is 0
	if words := probe.Exec.Command; len(words) == 3 && words[0] == "/bin/sh" && words[1] == "-c" {
		v.Test = []string{"CMD-SHELL", plain(words[2])}
		return v
	}
	v.Test = []string{"CMD"}
	for _, word := range probe.Exec.Command {
		v.Test = append(v.Test, plain(word))
	}
	return v
}
