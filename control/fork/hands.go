package fork

import (
	"context"
	"encoding/json"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/target"
)

// maxNews bounds the pods that wait for the hands.
const maxNews = 100_000

// hands are all nodes of a fork at once: what is put on a node runs and is ready,
// what is deleted is gone. A pod that the live cluster had on a node already stays
// as it is, well or not.
type hands struct {
	admin client.Transport
	base  map[string]*corev1.Pod
	log   *slog.Logger
	pods  *informer.Informer[*corev1.Pod]
	news  chan *corev1.Pod
}

func newHands(admin client.Transport, base map[string]*corev1.Pod, log *slog.Logger) *hands {
	h := &hands{admin: admin, base: base, log: log, news: make(chan *corev1.Pod, maxNews)}
	h.pods = informer.New(admin, client.Pods, informer.Options{Log: log})
	h.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New == nil || !h.concerns(e.New) {
			return
		}
		select {
		case h.news <- e.New:
		default:
			log.Warn("a pod is not run: too many at once", "pod", e.New.Name)
		}
	})
	return h
}

// concerns says whether a pod is to be changed.
func (h *hands) concerns(p *corev1.Pod) bool {
	if p.Spec.NodeName == "" {
		return false
	}
	if p.DeletionTimestamp != nil {
		return true
	}
	if before := h.base[string(p.UID)]; before != nil && before.Spec.NodeName != "" {
		return false
	}
	return p.Status.Phase == corev1.PodPending || p.Status.Phase == ""
}

func (h *hands) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.pods.Run(ctx) // ends only with ctx
	}()
	defer func() { <-done }()
	for {
		select {
		case p := <-h.news:
			if err := h.act(ctx, p); err != nil && ctx.Err() == nil {
				h.log.Warn("cannot bring a pod on", "pod", p.Namespace+"/"+p.Name, "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (h *hands) act(ctx context.Context, p *corev1.Pod) error {
	if p.DeletionTimestamp != nil {
		now := int64(0)
		err := client.Pods.Delete(ctx, h.admin, p.Namespace, p.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // it is gone, and perhaps has a successor
		}
		return err
	}
	status, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": runs(p)})
	if err != nil {
		return err
	}
	_, err = client.Pods.Patch(ctx, h.admin, target.Target{Namespace: p.Namespace, Name: p.Name, Subresource: "status"},
		client.Patch{Type: types.StrategicMergePatchType, Data: status})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// runs is the status of a pod all of whose containers run well.
func runs(p *corev1.Pod) corev1.PodStatus {
	now, yes := metav1.Now(), true
	s := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now}
	for _, c := range []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range p.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, Ready: true, Started: &yes,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}})
	}
	return s
}
