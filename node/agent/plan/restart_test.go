package plan

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestCrashDelaysDoubleAndAreForgotten(t *testing.T) {
	var c Crash
	now := epoch
	for _, seconds := range []int{0, 10, 20, 40, 80, 160, 300, 300} {
		want := time.Duration(seconds) * time.Second
		finished := now
		if got := c.Until(finished).Sub(finished); got != want {
			t.Fatalf("delay %v, want %v", got, want)
		}
		now = c.Until(finished)
		c = c.Restarted(now, finished)
	}
	long := now.Add(CrashForget + time.Second)
	if got := c.Until(long); !got.Equal(long) {
		t.Errorf("after a long run the container waits until %v", got)
	}
	if got := c.Restarted(long, long); got.Delay != CrashMin {
		t.Errorf("after a long run the next delay is %v", got.Delay)
	}
}

func TestRestartRules(t *testing.T) {
	never := corev1.ContainerRestartPolicyNever
	rules := []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
	pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways}}
	c := &corev1.Container{RestartPolicy: &never, RestartPolicyRules: rules}
	if !Restarts(pod, c, 42) || Restarts(pod, c, 1) {
		t.Error("the container's rule for exit code 42 isn't followed")
	}
	if !Restarts(pod, &corev1.Container{}, 0) {
		t.Error("a container without a policy doesn't follow the pod's")
	}
}
