package sim_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/internal/target"
)

// load is what the pods of namespace default use of the cpu, in thousandths each.
type load struct {
	each  atomic.Int64
	plane *plane
	spent map[string]float64
	last  time.Time
}

// ask is a node's answer: counters that grow by what has been used.
func (l *load) ask(context.Context, string) (io.ReadCloser, error) {
	var b strings.Builder
	now := time.Now()
	fmt.Fprintf(&b, "node_cpu_usage_seconds_total %g %d\nnode_memory_working_set_bytes 1\n", now.Sub(time.Unix(0, 0)).Seconds()/2, now.UnixMilli())
	for _, pod := range l.plane.list("default", "") {
		l.spent[pod.Name] += now.Sub(l.last).Seconds() * float64(l.each.Load()) / 1000
		labels := fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", "c", pod.Namespace, pod.Name)
		fmt.Fprintf(&b, "container_cpu_usage_seconds_total%s %g %d\n", labels, l.spent[pod.Name], now.UnixMilli())
		fmt.Fprintf(&b, "container_memory_working_set_bytes%s 1048576\n", labels)
	}
	l.last = now
	return io.NopCloser(strings.NewReader(b.String())), nil
}

// bound puts pods onto a node and makes them ready, started a while ago.
func (p *plane) bound(node string) {
	p.Helper()
	for _, pod := range p.list("default", "") {
		if pod.Spec.NodeName != "" {
			continue
		}
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
		at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("binding")
		if _, err := p.admin.Create(p.Context(), at, b, metav1.CreateOptions{}); err != nil {
			p.Fatal(err)
		}
	}
	p.settle()
	p.ready("default")
	for _, pod := range p.list("default", "") {
		if pod.Status.StartTime != nil {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.StartTime = &metav1.Time{Time: time.Now().Add(-time.Hour)}
		if _, err := client.Pods.UpdateStatus(p.Context(), p.admin, pod); err != nil {
			p.Fatal(err)
		}
	}
	p.settle()
}

func (p *plane) wantedReplicas() int32 {
	p.Helper()
	synctest.Wait()
	d, err := client.Deployments.Get(p.Context(), p.admin, "default", "web")
	if err != nil {
		p.Fatal(err)
	}
	return *d.Spec.Replicas
}

func (p *plane) expectAutoscaler(want string) {
	p.Helper()
	h, err := client.HorizontalPodAutoscalers.Get(p.Context(), p.admin, "default", "web")
	if err != nil {
		p.Fatal(err)
	}
	var got []string
	got = append(got, fmt.Sprintf("%d→%d", h.Status.CurrentReplicas, h.Status.DesiredReplicas))
	for _, c := range h.Status.Conditions {
		got = append(got, fmt.Sprintf("%s=%s", c.Reason, c.Status))
	}
	if text := strings.Join(got, " "); text != want {
		p.Errorf("autoscaler\n got %s\nwant %s\n%+v", text, want, h.Status.Conditions)
	}
}

// A deployment follows the load of its pods: up at once, down when it has been low
// for five minutes. Usage comes from the node through metrics.k8s.io.
func TestAutoscalerFollowsLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &load{spent: map[string]float64{}, last: time.Now()}
		p := startWith(t, func(c *apiserver.Config) { c.NodeMetrics = l.ask })
		l.plane = p
		ctx := t.Context()
		p.node("n1")
		go p.beat(ctx, "n1")
		made := web("default", "i")
		two := int32(2)
		made.Spec.Replicas = &two
		made.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		if _, err := client.Deployments.Create(ctx, p.admin, made); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.bound("n1")
		l.each.Store(500)
		half := int32(50)
		one := int32(1)
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MinReplicas: &one, MaxReplicas: 6,
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
					Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &half}}}}}}
		if _, err := client.HorizontalPodAutoscalers.Create(ctx, p.admin, h); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectAutoscaler("2→2 ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False")
		l.each.Store(1000)
		for wait := 0; p.wantedReplicas() == 2 && wait < 60; wait++ {
			time.Sleep(time.Second)
		}
		synctest.Wait()
		p.expectAutoscaler("2→4 SucceededRescale=True ValidMetricFound=True DesiredWithinRange=False NotScaledToZero=False")
		l.each.Store(100)
		p.bound("n1")
		if n := len(p.list("default", "app=web")); n != 4 {
			t.Fatalf("%d pods, want 4", n)
		}
		time.Sleep(2 * time.Minute)
		p.expectAutoscaler("4→4 ScaleDownStabilized=True ValidMetricFound=True DesiredWithinRange=False NotScaledToZero=False")
		time.Sleep(4 * time.Minute)
		p.settle()
		p.expectAutoscaler("1→1 ReadyForNewScale=True ValidMetricFound=True DesiredWithinRange=False NotScaledToZero=False")
		if n := p.wantedReplicas(); n != 1 {
			t.Errorf("%d replicas, want 1", n)
		}
		events, _, err := client.Events.List(ctx, p.admin, "default", metav1.ListOptions{FieldSelector: "involvedObject.kind=HorizontalPodAutoscaler"})
		if err != nil || len(events) < 2 || events[0].Reason != "SuccessfulRescale" ||
			events[0].Message != "New size: 4; reason: cpu resource utilization (percentage of request) above target" {
			t.Errorf("%v, events %+v", err, events)
		}
		// kubectl top reads the same.
		data, err := client.Raw(ctx, p.admin, "/apis/metrics.k8s.io/v1beta1/nodes/n1")
		if err != nil || !strings.Contains(string(data), `"cpu":"500`) {
			t.Errorf("%v, %s", err, data)
		}
	})
}

// What cannot be sized says why; a workload that somebody stopped stays stopped.
func TestAutoscalerCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 6,
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
				Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "queue"},
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: resource.NewQuantity(5, resource.DecimalSI)}}}}}}
		if _, err := client.HorizontalPodAutoscalers.Create(ctx, p.admin, h); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.expectAutoscaler("0→0 FailedGetScale=False")
		if _, err := client.Deployments.Create(ctx, p.admin, web("default", "i")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		p.expectAutoscaler("3→0 SucceededGetScale=True FailedGetExternalMetric=False")
		d, err := client.Deployments.Get(ctx, p.admin, "default", "web")
		if err != nil {
			t.Fatal(err)
		}
		d = d.DeepCopy()
		zero := int32(0)
		d.Spec.Replicas = &zero
		if _, err := client.Deployments.Update(ctx, p.admin, d); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		p.expectAutoscaler("0→0 SucceededGetScale=True ScalingDisabled=False")
	})
}
