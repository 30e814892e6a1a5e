package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// important makes the class of the pods that outrank others.
func important(ctx context.Context, a *arena) error {
	_, err := client.PriorityClasses.Create(ctx, a, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "important"}, Value: 10})
	return err
}

// every makes one pod after another until ctx ends.
func every(interval time.Duration, template func(string) *corev1.Pod) func(context.Context, *arena) {
	return func(ctx context.Context, a *arena) {
		if important(ctx, a) != nil {
			return
		}
		tick(ctx, interval, func(i int) {
			p := template(metav1.NamespaceDefault)
			p.Name = fmt.Sprintf("churn-%d", i)
			_, _ = client.Pods.Create(ctx, a, p) // load, no result
		})
	}
}

// mixedChurn makes and removes a node, a pod that fits nowhere and a service, once
// a second.
func mixedChurn(ctx context.Context, a *arena) {
	if important(ctx, a) != nil {
		return
	}
	none := int64(0)
	gone := metav1.DeleteOptions{GracePeriodSeconds: &none}
	tick(ctx, time.Second, func(i int) {
		name := fmt.Sprintf("churn-%d", i)
		n := benchNode(name, nil)
		n.Status.Capacity = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
		_ = a.node(ctx, n)
		p := importantPod("9")(metav1.NamespaceDefault)
		p.Name = name
		_, _ = client.Pods.Create(ctx, a, p)
		_, _ = client.Services.Create(ctx, a, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "foo"}, Ports: []corev1.ServicePort{{Port: 8080}}},
		})
		if i == 0 {
			return
		}
		before := fmt.Sprintf("churn-%d", i-1)
		_ = client.Nodes.Delete(ctx, a, "", before, gone)
		_ = client.Pods.Delete(ctx, a, metav1.NamespaceDefault, before, gone)
		_ = client.Services.Delete(ctx, a, metav1.NamespaceDefault, before, gone)
	})
}

// tick calls do at once and then once an interval.
func tick(ctx context.Context, interval time.Duration, do func(int)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		do(i)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}
