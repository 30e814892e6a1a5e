package seeded

import (
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// final asks whether the cluster has become what was asked for.
func (o *oracle) final(ctx context.Context) {
	o.checkHistory(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	pods := list(o, client.Pods)
	o.checkPromises(pods)
	o.finalPlaces(pods)
	o.finalDeployments(pods)
	o.finalSets(pods)
	o.finalJobs(pods)
	o.finalOwners(pods)
	o.finalSlices(pods)
	o.finalEngines(pods)
	o.finalScaled(pods)
	o.finalPeriodic()
	o.finalVolumes(pods)
	o.finalPriorities(pods)
	o.finalDisks(pods)
	o.finalRanges()
	o.finalPapers()
	o.finalMigrations()
	o.finalScribes()
	o.w.finalRare(ctx, pods)
	for res, objects := range o.objects {
		for key, obj := range objects {
			if at := obj.GetDeletionTimestamp(); at != nil {
				o.w.fail("%s %s has been going since %s: finalizers %v", res, key, at.Sub(o.w.begin), obj.GetFinalizers())
			}
		}
	}
}

// finalPlaces: a pod that has no node fits on none.
func (o *oracle) finalPlaces(pods []*corev1.Pod) {
	free := map[string]int64{}
	for _, n := range o.machines() {
		free[n.Name] = nodeCPU
	}
	for _, p := range pods {
		if !finished(p) {
			free[p.Spec.NodeName] -= request(p)
		}
	}
	delete(free, "")
	for _, p := range pods {
		for node, left := range free {
			if p.Spec.NodeName == "" && request(p) <= left && o.reaches(p, node) {
				o.w.fail("pod %s/%s waits, but node %s has %dm left and it wants %dm", p.Namespace, p.Name, node, left, request(p))
			}
		}
	}
}

// reaches says whether a pod has its volumes on a node: those of here are each of one
// node, and a claim that has none yet may get any.
func (o *oracle) reaches(p *corev1.Pod, node string) bool {
	if p.Name == scratch || p.Labels["app"] == gadgets {
		return false // nobody makes its volume; its node must have a device left
	}
	on := map[string]string{} // volume → node
	for _, v := range list(o, client.PersistentVolumes) {
		if v.Spec.NodeAffinity != nil {
			on[v.Name] = v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]
		}
	}
	for _, c := range list(o, client.PersistentVolumeClaims) {
		mine := c.Namespace == p.Namespace && slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == c.Name
		})
		if at, bound := on[c.Spec.VolumeName]; mine && bound && at != node {
			return false
		}
	}
	return true
}

func request(p *corev1.Pod) int64 {
	return p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
}

// waiting says whether a pod of an application has no place.
func waiting(pods []*corev1.Pod, namespace, app string) bool {
	return slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
		return p.Namespace == namespace && p.Labels["app"] == app && p.Spec.NodeName == ""
	})
}

func (o *oracle) finalDeployments(pods []*corev1.Pod) {
	for _, d := range list(o, client.Deployments) {
		want := *d.Spec.Replicas
		if d.Namespace == "tight" || d.Name == gadgets || waiting(pods, d.Namespace, d.Name) {
			continue // how much of it fits is the quota's, or the nodes', to say; no node has a driver of gadgets
		}
		if s := d.Status; s.AvailableReplicas != want || s.UpdatedReplicas != want || s.Replicas != want || s.ObservedGeneration != d.Generation {
			o.w.fail("deployment %s/%s wants %d: status %d/%d/%d, generation %d seen of %d", d.Namespace, d.Name, want,
				s.Replicas, s.UpdatedReplicas, s.AvailableReplicas, s.ObservedGeneration, d.Generation)
		}
	}
}

func (o *oracle) finalSets(pods []*corev1.Pod) {
	for _, s := range list(o, client.StatefulSets) {
		if waiting(pods, s.Namespace, s.Name) || len(s.Spec.VolumeClaimTemplates) > 0 {
			continue // a node need not be able to mount claims
		}
		if want := *s.Spec.Replicas; s.Status.ReadyReplicas != want || s.Status.Replicas != want || s.Status.UpdateRevision != s.Status.CurrentRevision {
			o.w.fail("stateful set %s wants %d: status %+v", s.Name, want, s.Status)
		}
	}
	for _, d := range list(o, client.DaemonSets) {
		if want := int32(len(o.machines())); d.Status.NumberReady != want || d.Status.UpdatedNumberScheduled != want {
			o.w.fail("daemon set %s wants %d: status %+v", d.Name, want, d.Status)
		}
	}
}

func (o *oracle) finalJobs(pods []*corev1.Pod) {
	for _, j := range list(o, client.Jobs) {
		if slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return metav1.IsControlledBy(p, j) && p.Spec.NodeName == "" }) {
			continue // it waits for a place
		}
		if j.Spec.Suspend != nil && *j.Spec.Suspend {
			continue // who suspended it found nobody to resume it
		}
		done := ""
		for _, c := range j.Status.Conditions {
			if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
				done += string(c.Type)
			}
		}
		flaky := j.Spec.Template.Spec.Containers[0].Image == "flaky"
		switch {
		case done == "" || done == "CompleteFailed" || done == "FailedComplete":
			o.w.fail("job %s has ended as %q: %+v", j.Name, done, j.Status)
		case done == "Complete" && (j.Status.Succeeded < *j.Spec.Completions || flaky):
			o.w.fail("job %s is complete with %d of %d, image %s", j.Name, j.Status.Succeeded, *j.Spec.Completions, j.Spec.Template.Spec.Containers[0].Image)
		case j.Status.Active > 0 || j.Status.UncountedTerminatedPods != nil && len(j.Status.UncountedTerminatedPods.Succeeded)+len(j.Status.UncountedTerminatedPods.Failed) > 0:
			o.w.fail("job %s has ended, but is not settled: %+v", j.Name, j.Status)
		}
	}
}

// finalOwners: nothing is left whose owner is gone.
func (o *oracle) finalOwners(pods []*corev1.Pod) {
	alive := map[string]bool{}
	for _, objects := range o.objects {
		for _, obj := range objects {
			alive[string(obj.GetUID())] = true
		}
	}
	for _, p := range pods {
		if ref := metav1.GetControllerOf(p); ref != nil && !alive[string(ref.UID)] {
			o.w.fail("pod %s/%s outlives its %s %s", p.Namespace, p.Name, ref.Kind, ref.Name)
		}
	}
	for _, rs := range list(o, client.ReplicaSets) {
		if ref := metav1.GetControllerOf(rs); ref != nil && !alive[string(ref.UID)] {
			o.w.fail("replica set %s/%s outlives its %s %s", rs.Namespace, rs.Name, ref.Kind, ref.Name)
		}
	}
}

// finalSlices: the endpoints of each service are its ready pods.
func (o *oracle) finalSlices(pods []*corev1.Pod) {
	got := map[string][]string{}
	for _, s := range list(o, client.EndpointSlices) {
		service := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.Conditions.Ready != nil && *e.Conditions.Ready {
				got[service] = append(got[service], e.TargetRef.Name)
			}
		}
	}
	for _, s := range list(o, client.Services) {
		if s.Spec.Selector == nil {
			continue
		}
		var want []string
		for _, p := range pods {
			if p.Namespace == s.Namespace && p.Labels["app"] == s.Spec.Selector["app"] && isReady(p) {
				want = append(want, p.Name)
			}
		}
		have := got[s.Namespace+"/"+s.Name]
		slices.Sort(have)
		if !slices.Equal(have, want) {
			o.w.fail("service %s/%s has endpoints %v, its ready pods are %v", s.Namespace, s.Name, have, want)
		}
	}
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// finalEngines: what runs is what there is.
func (o *oracle) finalEngines(pods []*corev1.Pod) {
	want := map[string]bool{}
	for _, p := range pods {
		if p.Spec.NodeName != "" && !finished(p) {
			want[fmt.Sprintf("%s on %s", p.UID, p.Spec.NodeName)] = !claims(p)
		}
	}
	for _, m := range o.w.nodes {
		for _, name := range m.running() {
			id := fmt.Sprintf("%s on %s", name.uid, m.name)
			if _, there := want[id]; !there {
				o.w.fail("node %s runs %s, which there is no more", m.name, name.pod)
			}
			delete(want, id)
		}
	}
	for id, must := range want {
		if !must {
			continue
		}
		o.w.fail("pod %s does not run", id)
	}
}

// claims says whether a pod mounts claims, or has devices, which a node need not be able to.
func claims(p *corev1.Pod) bool {
	return len(p.Spec.ResourceClaims) > 0 || slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil || v.Ephemeral != nil })
}
