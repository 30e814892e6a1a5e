package sim_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// taintRule taints all devices of a pool.
func (p *plane) taintRule(name, pool string, effect resourcev1.DeviceTaintEffect) *resourcev1.DeviceTaintRule {
	p.Helper()
	r := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
	r.Spec.DeviceSelector = &resourcev1.DeviceTaintSelector{Pool: &pool}
	r.Spec.Taint = resourcev1.DeviceTaint{Key: "example.com/sick", Effect: effect}
	return must[*resourcev1.DeviceTaintRule](p)(client.DeviceTaintRules.Create(p.Context(), p.admin, r))
}

// told is the condition of a rule: "status reason: message".
func (p *plane) told(name string) string {
	p.Helper()
	r := must[*resourcev1.DeviceTaintRule](p)(client.DeviceTaintRules.Get(p.Context(), p.admin, "", name))
	for _, c := range r.Status.Conditions {
		if c.Type == resourcev1.DeviceTaintConditionEvictionInProgress {
			return string(c.Status) + " " + c.Reason + ": " + c.Message
		}
	}
	return ""
}

func (p *plane) podThere(name string) bool {
	p.Helper()
	pod, err := client.Pods.Get(p.Context(), p.admin, "default", name)
	if err != nil && !apierrors.IsNotFound(err) {
		p.Fatal(err)
	}
	return err == nil && pod.DeletionTimestamp == nil
}

// patient is a request whose devices may be sick for a while; seconds < 0 is for ever.
func patient(seconds int64) resourcev1.DeviceRequest {
	r := exactly("gpu", 1)
	t := resourcev1.DeviceToleration{Key: "example.com/sick", Operator: resourcev1.DeviceTolerationOpExists, Effect: resourcev1.DeviceTaintEffectNoExecute}
	if seconds >= 0 {
		t.TolerationSeconds = &seconds
	}
	r.Exactly.Tolerations = []resourcev1.DeviceToleration{t}
	return r
}

// A rule first tells what it would evict; when it does, pods go that do not tolerate
// it, or no longer, and its status tells how many.
func TestTaintedDevicesAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		p.gpus("n1", "a", "a", "a")
		p.schedule()
		p.deviceClaim("now", exactly("gpu", 1))
		p.deviceClaim("soon", patient(60))
		p.deviceClaim("never", patient(-1))
		for _, name := range []string{"now", "soon", "never"} {
			p.addPod(name, "1", claiming(name))
		}
		p.settle()
		for _, name := range []string{"now", "soon", "never"} {
			p.want(name, "n1")
		}
		r := p.taintRule("sick", "n1", resourcev1.DeviceTaintEffectNone)
		if r.Spec.Taint.TimeAdded == nil {
			t.Error("nobody knows since when the taint is there")
		}
		p.settle()
		if got, want := p.told("sick"), "False NoEffect: 3 published devices selected. 3 allocated devices selected. 2 pods would be evicted in 1 namespace if the effect was NoExecute."; !strings.HasPrefix(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		next := must[*resourcev1.DeviceTaintRule](p)(client.DeviceTaintRules.Get(p.Context(), p.admin, "", "sick")).DeepCopy()
		next.Spec.Taint.Effect = resourcev1.DeviceTaintEffectNoExecute
		must[*resourcev1.DeviceTaintRule](p)(client.DeviceTaintRules.Update(p.Context(), p.admin, next))
		p.settle()
		if p.podThere("now") || !p.podThere("soon") || !p.podThere("never") {
			t.Errorf("there are: now %t, soon %t, never %t", p.podThere("now"), p.podThere("soon"), p.podThere("never"))
		}
		time.Sleep(time.Minute + 15*time.Second)
		p.settle()
		if p.podThere("soon") || !p.podThere("never") {
			t.Errorf("after a minute there are: soon %t, never %t", p.podThere("soon"), p.podThere("never"))
		}
		time.Sleep(30 * time.Second)
		if got, want := p.told("sick"), "False Completed: 2 pods evicted since starting the controller."; got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

// A driver's own taint evicts as well; a pod whose device is well again in time
// stays, and its events tell.
func TestDevicesThatGetWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		s := p.gpus("n1", "a")
		p.schedule()
		p.deviceClaim("c", patient(60))
		p.addPod("pod", "1", claiming("c"))
		p.settle()
		p.want("pod", "n1")
		sick := s.DeepCopy()
		sick.Spec.Devices[0].Taints = []resourcev1.DeviceTaint{{Key: "example.com/sick", Effect: resourcev1.DeviceTaintEffectNoExecute}}
		sick = must[*resourcev1.ResourceSlice](p)(client.ResourceSlices.Update(p.Context(), p.admin, sick)).DeepCopy()
		time.Sleep(30 * time.Second)
		sick.Spec.Devices[0].Taints = nil
		must[*resourcev1.ResourceSlice](p)(client.ResourceSlices.Update(p.Context(), p.admin, sick))
		time.Sleep(2 * time.Minute)
		if !p.podThere("pod") {
			t.Fatal("the pod has gone though its device is well")
		}
		events, _, err := client.Events.List(p.Context(), p.admin, "default", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, e := range events {
			told = told || e.Reason == "DeviceTaintManagerEviction" && e.Message == "Cancelling deletion" && e.Type == corev1.EventTypeNormal
		}
		if !told {
			t.Error("no event tells that the deletion is cancelled")
		}
	})
}
