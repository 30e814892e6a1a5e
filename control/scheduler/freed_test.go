package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// Whom a preemption evicts does not depend on what was found out for others before.
func TestFreeingAnew(t *testing.T) {
	for seed := range uint64(20) {
		pick := rand.New(rand.NewPCG(seed, 0))
		used, where := scheduler.NewWorld(profile.Default()[0]), map[string][]*corev1.Pod{}
		for i := range 8 {
			used.SetNode(benchNode(i))
			for j := range 4 {
				p := benchPod(fmt.Sprintf("low-%d-%d", i, j), func(p *corev1.Pod) { sized(p, int32(pick.IntN(3)), "900m") })
				used.Place(p, nodeName(i))
				where[nodeName(i)] = append(where[nodeName(i)], p)
			}
		}
		for step := range 30 {
			at := nodeName(pick.IntN(8))
			switch old := where[at][0]; pick.IntN(3) {
			case 0: // it has begun to run
				p := old.DeepCopy()
				p.Status.StartTime = &metav1.Time{Time: time.Unix(int64(pick.IntN(1000)), 0)}
				used.Place(p, at)
				where[at] = append(where[at][1:], p)
			case 1: // another takes its place
				used.Lift(old)
				p := benchPod(fmt.Sprintf("next-%d", step), func(p *corev1.Pod) { sized(p, int32(pick.IntN(3)), "900m") })
				used.Place(p, at)
				where[at] = append(where[at][1:], p)
			}
			fresh := scheduler.NewWorld(profile.Default()[0])
			for i := range 8 {
				fresh.SetNode(benchNode(i))
				for _, p := range where[nodeName(i)] {
					fresh.Place(p, nodeName(i))
				}
			}
			boss := benchPod("boss", func(p *corev1.Pod) { sized(p, int32(1+pick.IntN(3)), "2") })
			node, victims, text := used.Decide(boss).Preempt(nil)
			node2, victims2, text2 := fresh.Decide(boss).Preempt(nil)
			if node != node2 || fmt.Sprint(victims) != fmt.Sprint(victims2) || text != text2 {
				t.Fatalf("seed %d, step %d: %s %s %q, afresh %s %s %q", seed, step, node, victims, text, node2, victims2, text2)
			}
		}
	}
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

func sized(p *corev1.Pod, priority int32, cpu string) {
	p.Spec.Priority = &priority
	p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse(cpu)
}
