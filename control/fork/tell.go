package fork

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// tell compares what has become of the pods with what was.
func (f *Fork) tell(ctx context.Context, out *explain.Forecast, start time.Time) error {
	// What is told is asked for even when the time is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quiet)
	defer cancel()
	pods, _, err := client.Pods.List(ctx, f.admin, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("read the fork's pods: %w", err)
	}
	out.Revision, out.Objects, out.Unread = f.base.revision, f.base.objects, f.base.unread
	here := map[string]bool{}
	for _, p := range pods {
		here[string(p.UID)] = true
		before := f.base.pods[string(p.UID)]
		if before != nil && before.Spec.NodeName == p.Spec.NodeName && p.Spec.NodeName != "" || finished(p) {
			continue
		}
		at := f.placement(p, before != nil)
		if p.Spec.NodeName == "" {
			out.Pending = append(out.Pending, at)
		} else {
			out.Placed = append(out.Placed, at)
		}
	}
	victims := f.victims(out)
	for uid, p := range f.base.pods {
		if here[uid] || p.DeletionTimestamp != nil {
			continue
		}
		reason := victims[p.Namespace+"/"+p.Name]
		if reason == "" {
			reason = "evicted or deleted"
			if ref := metav1.GetControllerOf(p); ref == nil {
				reason += "; nothing brings it back"
			}
		}
		out.Gone = append(out.Gone, explain.Loss{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Reason: reason})
	}
	slices.SortFunc(out.Gone, func(a, b explain.Loss) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	out.Millis = time.Since(start).Milliseconds()
	return nil
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// placement says where a pod is and why, from the scheduler's record.
func (f *Fork) placement(p *corev1.Pod, live bool) explain.Placement {
	at := explain.Placement{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Live: live}
	if ref := metav1.GetControllerOf(p); ref != nil {
		at.Owner = ref.Kind + "/" + ref.Name
	}
	d, ok := f.placing.Records().Of(p.Namespace, p.Name)
	if ok && d.UID == string(p.UID) {
		at.Decision = &d
	}
	switch {
	case p.Spec.NodeName == "" && at.Decision != nil && len(d.Gates) > 0:
		at.Reason = "scheduling gates " + strings.Join(d.Gates, ", ")
	case p.Spec.NodeName == "" && at.Decision != nil:
		at.Reason = d.Message
	case p.Spec.NodeName == "":
		at.Reason = fmt.Sprintf("the scheduler %q has not looked at it", p.Spec.SchedulerName)
	case at.Decision != nil:
		at.Reason = fmt.Sprintf("%d of %d nodes fit", d.Nodes-d.Refused(), d.Nodes)
		if len(d.Scores) > 0 {
			at.Reason += fmt.Sprintf(", it has most points: %d", d.Scores[0].Total)
		}
	}
	return at
}

// victims are the pods that were evicted for others.
func (f *Fork) victims(out *explain.Forecast) map[string]string {
	found := map[string]string{}
	for _, list := range [][]explain.Placement{out.Placed, out.Pending} {
		for _, p := range list {
			if p.Decision == nil {
				continue
			}
			for _, v := range p.Decision.Victims {
				found[v] = "preempted by " + p.Namespace + "/" + p.Name
			}
		}
	}
	return found
}
