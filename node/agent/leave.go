package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
)

// release gives back what a pod without processes still holds: its volumes, and
// if it is being deleted its containers, sandboxes and with them its cgroup.
// Before the latter its last status must have arrived, since nothing could
// tell it afterwards.
func (m *machine) release(ctx context.Context) {
	if m.ops[opRelease] != nil {
		return
	}
	deleting := m.gone || m.pod.DeletionTimestamp != nil
	if deleting && !m.gone && !m.written {
		return
	}
	m.frozen = deleting
	m.launch(ctx, opRelease, plan.Step{}, func(ctx context.Context) func(*machine) {
		m.a.unplace(string(m.uid))
		err := errors.Join(m.a.places.claims.Release(ctx, string(m.uid)), m.a.volumes.Remove(string(m.uid)))
		if err == nil && deleting {
			err = m.a.remove(ctx, string(m.uid))
		}
		if err != nil {
			m.log.Warn("can't release the pod's volumes and containers; trying again", "err", err)
			pause(ctx, boxRetry.Min)
			return nil
		}
		m.a.made.heed() // a volume may wait for its last pod
		return func(m *machine) { m.stage = ended }
	})
}

// remove takes all of a pod out of the engine.
func (a *Agent) remove(ctx context.Context, uid string) error {
	ctx, cancel := context.WithTimeout(ctx, sandboxTimeout)
	defer cancel()
	selector := map[string]string{actual.LabelPodUID: uid}
	list, err := a.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{Filter: &rt.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var failed []error
	for _, c := range list.GetContainers() {
		_, err := a.cfg.Engine.RemoveContainer(ctx, &rt.RemoveContainerRequest{ContainerId: c.GetId()})
		failed = append(failed, err)
		a.unlinkListed(c)
	}
	boxes, err := a.cfg.Engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{Filter: &rt.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return errors.Join(append(failed, fmt.Errorf("list sandboxes: %w", err))...)
	}
	for _, b := range boxes.GetItems() {
		_, stop := a.cfg.Engine.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: b.GetId()})
		_, err := a.cfg.Engine.RemovePodSandbox(ctx, &rt.RemovePodSandboxRequest{PodSandboxId: b.GetId()})
		failed = append(failed, stop, err)
	}
	return errors.Join(failed...)
}

// finish waits with a pod that has ended. When it is to be deleted, and what it
// held is released, the API is told to let it go.
func (m *machine) finish(ctx context.Context, again *alarm) {
	if m.gone {
		m.stage = burying
		return
	}
	if m.pod.DeletionTimestamp == nil || m.ops[opDelete] != nil {
		return
	}
	if !m.frozen {
		// It ended by itself, and its containers were kept for their logs until now.
		m.stage = releasing
		return
	}
	if len(m.pod.Finalizers) > 0 && deletedOnce(m.pod) {
		return
	}
	if time.Now().Before(m.holdSend) {
		again.by(m.holdSend)
		return
	}
	pod := m.pod
	m.launch(ctx, opDelete, plan.Step{}, func(ctx context.Context) func(*machine) {
		err := m.a.deletePod(ctx, pod)
		return func(m *machine) {
			if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				m.holdSend = time.Now().Add(sendRetry.Max)
				return
			}
			m.log.Warn("can't delete the pod from the API", "err", err)
			m.sendFail++
			m.holdSend = time.Now().Add(sendRetry.After(m.sendFail))
		}
	})
}

// deletedOnce: with a grace of 0 already, only finalizers hold the object.
func deletedOnce(pod *corev1.Pod) bool {
	return pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
}

func (a *Agent) deletePod(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	now, uid := int64(0), pod.UID
	return client.Pods.Delete(ctx, a.cfg.Transport, pod.Namespace, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid},
	})
}

// bury removes the last traces of a pod that the API has forgotten.
func (m *machine) bury(ctx context.Context) {
	if m.ops[opBury] != nil {
		return
	}
	released, dir := m.frozen, m.a.node.LogDirectory(m.pod)
	m.launch(ctx, opBury, plan.Step{}, func(ctx context.Context) func(*machine) {
		var err error
		if !released {
			err = errors.Join(m.a.places.claims.Release(ctx, string(m.uid)), m.a.volumes.Remove(string(m.uid)), m.a.remove(ctx, string(m.uid)))
		}
		m.a.logs.Forget(dir)
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			m.log.Warn("can't remove the pod's last traces; trying again", "err", err)
			pause(ctx, boxRetry.Min)
			return nil
		}
		m.a.made.heed()
		return func(m *machine) { m.stage = buried }
	})
}
