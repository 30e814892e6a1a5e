package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

const (
	// singles is how many pods are made one after the other.
	singles = 50
	// burst is how many are made at once.
	burst = 20
	// podImage is built from the example; it is present before a pod asks for it.
	podImage = "hello:bench"
)

// pods measures from the create request to Running, as a watcher sees it.
func pods(ctx context.Context) (rows []row, err error) {
	c, err := up(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := c.down(ctx); err == nil {
			err = e
		}
	}()
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	var took []time.Duration
	for i := range singles {
		d, err := c.create(ctx, fmt.Sprintf("single-%d", i), 1)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	together, err := c.create(ctx, "burst", burst)
	if err != nil {
		return nil, err
	}
	return []row{
		{"pod create to Running, p50", fmt.Sprintf("%d ms", took[len(took)/2].Milliseconds()), "<= 60 ms"},
		{"pod create to Running, p99", fmt.Sprintf("%d ms", took[len(took)*99/100].Milliseconds()), "<= 300 ms"},
		{fmt.Sprintf("%d pods at once, the last Running", burst), fmt.Sprintf("%d ms", together.Milliseconds()), "500 ms"},
	}, nil
}

// ready builds the image and waits for the default service account.
func (c *cluster) ready(ctx context.Context) error {
	if err := c.run(ctx, "build", "-t", podImage, "examples/hello"); err != nil {
		return err
	}
	for {
		_, err := client.ServiceAccounts.Get(ctx, c, "default", "default")
		if !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// create makes n pods and returns the time until a watcher has seen all of them
// Running; then it deletes them.
func (c *cluster) create(ctx context.Context, name string, n int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w, err := client.Pods.Watch(ctx, c, "default", metav1.ListOptions{LabelSelector: "bench=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	start := time.Now()
	for i := range n {
		if _, err := client.Pods.Create(ctx, c, pod(fmt.Sprintf("%s-%d", name, i), name)); err != nil {
			return 0, err
		}
	}
	running := map[string]bool{}
	for len(running) < n {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return 0, fmt.Errorf("watch ended with %d of %d pods running", len(running), n)
			}
			if p, is := e.Object.(*corev1.Pod); is && p.Status.Phase == corev1.PodRunning {
				running[p.Name] = true
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d pods running: %w", len(running), n, context.Cause(ctx))
		}
	}
	took := time.Since(start)
	for i := range n {
		none := int64(0)
		err := client.Pods.Delete(ctx, c, "default", fmt.Sprintf("%s-%d", name, i), metav1.DeleteOptions{GracePeriodSeconds: &none})
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

// pod is a pod that only sleeps: what is measured is not its program.
func pod(name, series string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"bench": series}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: podImage, Command: []string{"/hello", "get", "-n", "0", "-quiet", "-every", "1h", "http://127.0.0.1:1/"},
		}}},
	}
}
