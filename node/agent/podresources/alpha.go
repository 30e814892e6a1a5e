package podresources

import (
	"context"

	podresourcesv1alpha1 "k8s.io/kubelet/pkg/apis/podresources/v1alpha1"
)

// alpha answers those who ask in the first version of the API
// (k8s.io/kubelet/pkg/apis/podresources/v1alpha1), which upstream's kubelet serves too:
// it tells of the containers' devices alone.
type alpha struct {
	podresourcesv1alpha1.UnimplementedPodResourcesListerServer

	lister *lister
}

// List tells of all pods.
func (a alpha) List(context.Context, *podresourcesv1alpha1.ListPodResourcesRequest) (*podresourcesv1alpha1.ListPodResourcesResponse, error) {
	out := &podresourcesv1alpha1.ListPodResourcesResponse{}
	for _, p := range a.lister.cfg.Pods() {
		pod := &podresourcesv1alpha1.PodResources{Name: p.Name, Namespace: p.Namespace}
		for i := range p.Spec.Containers {
			c := &podresourcesv1alpha1.ContainerResources{Name: p.Spec.Containers[i].Name}
			for _, d := range a.lister.devices(string(p.UID), c.Name) {
				c.Devices = append(c.Devices, &podresourcesv1alpha1.ContainerDevices{ResourceName: d.ResourceName, DeviceIds: d.DeviceIds})
			}
			pod.Containers = append(pod.Containers, c)
		}
		out.PodResources = append(out.PodResources, pod)
	}
	return out, nil
}
