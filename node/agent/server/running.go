package server

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/cri"
)

// runningPods shows what the engine runs, whatever the API says of it. As upstream has
// it these are pods in outline: who they are, and their running containers' names and
// images, the newest first.
func (s *Server) runningPods(w http.ResponseWriter, r *http.Request) {
	list, err := s.outline(r.Context())
	if err != nil {
		http.Error(w, cri.Message(err), http.StatusInternalServerError)
		return
	}
	s.json(w, list)
}

func (s *Server) outline(ctx context.Context) (corev1.PodList, error) {
	list := podList()
	boxes, err := s.cfg.Engine.ListPodSandbox(ctx, &rt.ListPodSandboxRequest{})
	if err != nil {
		return list, err
	}
	containers, err := s.cfg.Engine.ListContainers(ctx, &rt.ListContainersRequest{})
	if err != nil {
		return list, err
	}
	places := map[types.UID]int{}
	pod := func(uid, namespace, name string) *corev1.Pod {
		i, known := places[types.UID(uid)]
		if !known {
			i = len(list.Items)
			places[types.UID(uid)] = i
			list.Items = append(list.Items, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID(uid)}})
		}
		return &list.Items[i]
	}
	slices.SortFunc(boxes.Items, func(a, b *rt.PodSandbox) int {
		return cmp.Or(cmp.Compare(b.GetCreatedAt(), a.GetCreatedAt()), cmp.Compare(a.GetId(), b.GetId()))
	})
	for _, b := range boxes.GetItems() {
		if m := b.GetMetadata(); b.GetState() == rt.PodSandboxState_SANDBOX_READY {
			pod(m.GetUid(), m.GetNamespace(), m.GetName())
		}
	}
	slices.SortFunc(containers.Containers, func(a, b *rt.Container) int {
		return cmp.Or(cmp.Compare(b.GetCreatedAt(), a.GetCreatedAt()), cmp.Compare(a.GetId(), b.GetId()))
	})
	for _, c := range containers.GetContainers() {
		if l := c.GetLabels(); c.GetState() == rt.ContainerState_CONTAINER_RUNNING {
			p := pod(l[actual.LabelPodUID], l[actual.LabelPodNamespace], l[actual.LabelPodName])
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.GetMetadata().GetName(), Image: c.GetImage().GetImage()})
		}
	}
	return list, nil
}
