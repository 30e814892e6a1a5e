package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
)

// boxRetry spaces attempts to make a sandbox.
var boxRetry = backoff.Policy{Min: time.Second, Max: time.Minute}

// Bounds of single calls to the engine; upstream's runtime-request-timeout for
// the quick ones, twice that where a network plugin has its say.
const (
	callTimeout    = 2 * time.Minute
	sandboxTimeout = 4 * time.Minute
)

func (m *machine) runSandbox(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	begin := time.Now()
	if s.Attempt > 0 {
		m.a.events.Event(pod, corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	id, err := m.makeSandbox(ctx, pod, uint32(s.Attempt))
	given := errors.Is(ctx.Err(), context.Canceled) // given up: the pod is to end
	fault := ""
	if err == nil {
		m.a.mark(m.uid, "run sandbox", "", begin)
	} else if !pod.Spec.HostNetwork {
		fault = m.a.networkFault(ctx)
	}
	return func(m *machine) {
		if err == nil {
			m.boxFail, m.holdBox = 0, time.Time{}
			m.given[id] = plan.AskedWhole(pod)
			return
		}
		m.boxFail++
		m.holdBox = time.Now().Add(boxRetry.After(m.boxFail))
		var claims *unprepared
		switch {
		case given:
		case errors.As(err, &claims):
			m.event(corev1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: "+claims.Error())
		case fault != "":
			m.event(corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: container runtime network not ready: "+fault)
		default:
			m.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
		}
	}
}

// unprepared says that the pod's claims are not ready for it.
type unprepared struct{ error }

// networkFault is what the engine says about a pod network that isn't ready, or
// "". Only a failure asks for it.
func (a *Agent) networkFault(ctx context.Context) string {
	got, err := a.cfg.Engine.Status(ctx, &rt.StatusRequest{})
	if err != nil {
		return ""
	}
	for _, c := range got.GetStatus().GetConditions() {
		if c.GetType() == rt.NetworkReady && !c.GetStatus() {
			return fmt.Sprintf("%s=false reason:%s message:%s", c.GetType(), c.GetReason(), c.GetMessage())
		}
	}
	return ""
}

func (m *machine) makeSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (id string, err error) {
	old, err := m.a.cfg.Engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{Filter: &rt.PodSandboxFilter{
		LabelSelector: map[string]string{actual.LabelPodUID: string(pod.UID)},
	}})
	if err != nil {
		return "", err
	}
	for _, b := range old.GetItems() {
		// A dead sandbox may still hold an address; what it had is given back first.
		if _, err := m.a.cfg.Engine.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: b.GetId()}); err != nil {
			return "", fmt.Errorf("stop old sandbox: %w", err)
		}
	}
	handler, err := m.a.handler(ctx, pod)
	if err != nil {
		return "", err
	}
	if err := m.a.places.claims.Prepare(ctx, pod); err != nil {
		return "", &unprepared{err}
	}
	if err := spec.CheckHostname(pod, m.a.node.ClusterDomain); err != nil {
		return "", err
	}
	cfg := spec.Sandbox(pod, attempt, m.a.node)
	if err := os.MkdirAll(cfg.GetLogDirectory(), 0o755); err != nil {
		return "", fmt.Errorf("create log directory: %w", err)
	}
	if cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions, err = m.a.userNamespace(ctx, pod, handler); err != nil {
		return "", err
	}
	begin := time.Now()
	made, err := m.a.cfg.Engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	own := pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers
	m.a.tally.PodStarted(tally.Box{Handler: handler, Users: own, Took: time.Since(begin), Err: err})
	return made.GetPodSandboxId(), cri.Framed(err)
}

// handler is the engine's name for the pod's runtime class, "" for the default.
func (a *Agent) handler(ctx context.Context, pod *corev1.Pod) (string, error) {
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return "", nil
	}
	class, err := client.RuntimeClasses.Get(ctx, a.cfg.Transport, "", *pod.Spec.RuntimeClassName)
	if err != nil {
		return "", fmt.Errorf("failed to get RuntimeClass %q: %w", *pod.Spec.RuntimeClassName, err)
	}
	return class.Handler, nil
}

func (m *machine) stopSandbox(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	if _, err := m.a.cfg.Engine.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: s.ID}); err != nil {
		m.a.events.Event(pod, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+cri.Message(err))
		pause(ctx, boxRetry.Min)
	}
	return nil
}

func (m *machine) removeSandbox(ctx context.Context, _ *corev1.Pod, s plan.Step) func(*machine) {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	if _, err := m.a.cfg.Engine.RemovePodSandbox(ctx, &rt.RemovePodSandboxRequest{PodSandboxId: s.ID}); err != nil {
		m.log.Warn("can't remove an old sandbox", "sandbox", s.ID, "err", err)
		pause(ctx, boxRetry.Max)
	}
	return nil
}

// pause waits inside an operation, so that what failed isn't begun at once again.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
