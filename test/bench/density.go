package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/cri"
)

const (
	// densePods are on one node at once; keptPods of them see the agent start anew.
	densePods, keptPods = 300, 100
	// atOnce is how many pods are created, or deleted, at a time.
	atOnce = 8
	// watchFor is how long the probes are counted.
	watchFor = time.Minute
	// probePeriod is that of each pod's probe, which is the default as well.
	probePeriod = 10 * time.Second
	// denseTime bounds each step.
	denseTime = 3 * time.Minute
)

// density fills a node with pods that have probes, sees whether these are kept, and
// kills and starts sampan below a part of them.
func density(ctx context.Context) (rows []row, err error) {
	files, err := os.MkdirTemp("", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(files)
	archive, config := filepath.Join(files, "images.tar"), filepath.Join(files, "kubelet.yaml")
	if err := makeImages(ctx, filepath.Join(files, "images"), archive); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: %d\n", densePods+20)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	run := filepath.Join(files, "run")
	c, err := up(ctx, "--run-dir", run, "--kubelet-config", config, "--pod-cidr", "10.42.0.0/22")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.down(ctx)) }()
	c.inRun = run
	if err := c.run(ctx, "load", "-i", archive); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) ([]row, error){c.fill, c.keepProbes, c.restart} {
		more, err := part(ctx)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return append(rows, row{"load of the machine meanwhile", load(), ""}), nil
}

// fill creates the pods and takes the time until a watcher has seen the last of
// them run, and be ready.
func (c *cluster) fill(ctx context.Context) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, denseTime)
	defer cancel()
	before, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	c.empty = before.pss
	w, err := client.Pods.Watch(ctx, c, "default", metav1.ListOptions{LabelSelector: "bench=dense"})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	begin := time.Now()
	var g errgroup.Group
	g.Go(func() error {
		return eachPod(0, densePods, func(name string) error {
			_, err := client.Pods.Create(ctx, c, densePod(name))
			return err
		})
	})
	running, ready := map[string]time.Duration{}, map[string]time.Duration{}
	for len(ready) < densePods {
		select {
		case e, ok := <-w.ResultChan():
			p, is := e.Object.(*corev1.Pod)
			if !ok || !is {
				return nil, fmt.Errorf("watch ended with %d of %d pods ready", len(ready), densePods)
			}
			first(running, p, p.Status.Phase == corev1.PodRunning, begin)
			first(ready, p, isReady(p), begin)
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d pods running, %d ready: %w", len(running), densePods, len(ready), context.Cause(ctx))
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	after, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	started, probed := slices.Max(slices.Collect(maps.Values(running))), slices.Max(slices.Collect(maps.Values(ready)))
	return []row{
		{fmt.Sprintf("%d pods with probes on one node, until the last runs", densePods), fmt.Sprintf("%.1f s, %.1f pods a second", started.Seconds(), densePods/started.Seconds()), ">= 50 a second"},
		{"… until the last is ready", fmt.Sprintf("%.1f s", probed.Seconds()), ""},
		{"… processor of sampan and its keeper", fmt.Sprintf("%.1f ms a pod", milli(after.cpu-before.cpu)/densePods), ""},
		{"… memory (PSS) of both, for each", fmt.Sprintf("%.0f kB", float64(after.pss-before.pss)/densePods/1000), "<= 1 MB"},
	}, nil
}

func first(at map[string]time.Duration, p *corev1.Pod, is bool, begin time.Time) {
	if _, seen := at[p.Name]; is && !seen {
		at[p.Name] = time.Since(begin)
	}
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// eachPod does something with the names of the pods from one number to another,
// several at a time.
func eachPod(from, to int, do func(name string) error) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := from; i < to; i++ {
		g.Go(func() error { return do(fmt.Sprintf("dense-%03d", i)) })
	}
	return g.Wait()
}

// densePod serves its own hosts file; every third is probed by a command, by HTTP
// and by a connection.
func densePod(name string) *corev1.Pod {
	number, _ := strconv.Atoi(name[len(name)-3:]) // eachPod made it
	probe := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/busybox", "true"}}}
	switch port := intstr.FromInt32(80); number % 3 {
	case 1:
		probe = corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/hosts", Port: port}}
	case 2:
		probe = corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"bench": "dense"}},
		// Its first process ignores what it does not handle, and is waited for so long.
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1)), Containers: []corev1.Container{{
			Name: "main", Image: busyboxImage, Args: []string{"httpd", "-f", "-p", "80", "-h", "/etc"},
			Resources:      corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}, Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: probe, PeriodSeconds: int32(probePeriod.Seconds())},
			LivenessProbe:  &corev1.Probe{ProbeHandler: probe, PeriodSeconds: int32(probePeriod.Seconds())},
		}}},
	}
}

// keepProbes counts the probes for a while, and the pods that are ready after it.
func (c *cluster) keepProbes(ctx context.Context) ([]row, error) {
	before, err := c.probes(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, watchFor); err != nil {
		return nil, err
	}
	after, err := c.probes(ctx)
	if err != nil {
		return nil, err
	}
	then, err := c.usage(ctx)
	if err != nil {
		return nil, err
	}
	ready, restarts, err := c.standing(ctx)
	if err != nil {
		return nil, err
	}
	want := float64(2*densePods) * watchFor.Seconds() / probePeriod.Seconds()
	good := after["successful"] - before["successful"]
	failed := after["failed"] - before["failed"] + after["unknown"] - before["unknown"]
	return []row{
		{fmt.Sprintf("their probes in %v", watchFor), fmt.Sprintf("%.0f good of %.0f due, %.0f failed", good, want, failed), "all kept"},
		{"… pods ready after it, and restarts", fmt.Sprintf("%d ready, %d restarts", ready, restarts), fmt.Sprintf("%d, 0", densePods)},
		{"… processor of sampan and its keeper meanwhile", fmt.Sprintf("%.1f %% of one core", (then.cpu-cpu.cpu).Seconds()/watchFor.Seconds()*100), ""},
		{"… memory (PSS) of both after it, for each", fmt.Sprintf("%.0f kB", float64(then.pss-c.empty)/densePods/1000), "<= 1 MB"},
	}, nil
}

// probes are the results that the agent has counted, by name.
func (c *cluster) probes(ctx context.Context) (map[string]float64, error) {
	list, err := c.List(ctx, nodesTarget, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	nodes := list.(*corev1.NodeList).Items
	if len(nodes) != 1 {
		return nil, fmt.Errorf("%d nodes instead of one", len(nodes))
	}
	h, err := overTLS(c.cfg)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.Host+"/api/v1/nodes/"+nodes[0].Name+"/proxy/metrics/probes", nil)
	if err != nil {
		return nil, err
	}
	answer, err := h.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the node's probes: %s", answer.Status)
	}
	out := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		labels, is := strings.CutPrefix(lines.Text(), "prober_probe_total{")
		_, result, found := strings.Cut(labels, `result="`)
		if !is || !found {
			continue
		}
		name, number, _ := strings.Cut(result, `"`)
		n, err := strconv.ParseFloat(number[strings.LastIndexByte(number, ' ')+1:], 64)
		if err != nil {
			return nil, err
		}
		out[name] += n
	}
	return out, nil
}

// standing counts the pods that are ready, and all restarts.
func (c *cluster) standing(ctx context.Context) (ready int, restarts int32, err error) {
	pods, _, err := client.Pods.List(ctx, c, "default", metav1.ListOptions{LabelSelector: "bench=dense"})
	if err != nil {
		return 0, 0, err
	}
	for _, p := range pods {
		if isReady(p) {
			ready++
		}
		for _, s := range p.Status.ContainerStatuses {
			restarts += s.RestartCount
		}
	}
	return ready, restarts, nil
}

// restart kills sampan while some of the pods run, and starts it again.
func (c *cluster) restart(ctx context.Context) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, denseTime)
	defer cancel()
	none := int64(0)
	begin := time.Now()
	err := eachPod(keptPods, densePods, func(name string) error {
		return client.Pods.Delete(ctx, c, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &none})
	})
	if err != nil {
		return nil, err
	}
	var before, after map[string]int64
	for len(before) != keptPods {
		if before, err = c.containers(ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%d containers are left instead of %d: %w", len(before), keptPods, err)
		}
	}
	gone := time.Since(begin)
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return nil, err
	}
	_ = c.cmd.Wait() // it was killed
	begin = time.Now()
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	if err := pause(ctx, 2*probePeriod); err != nil {
		return nil, err
	}
	if after, err = c.containers(ctx); err != nil {
		return nil, err
	}
	ready, restarts, err := c.standing(ctx)
	if err != nil {
		return nil, err
	}
	touched := 0
	for id, at := range before {
		if after[id] != at {
			touched++
		}
	}
	return []row{
		{fmt.Sprintf("%d of the pods deleted, until the last container is gone", densePods-keptPods), fmt.Sprintf("%.1f s", gone.Seconds()), ""},
		{fmt.Sprintf("sampan killed and started below %d pods, until it is ready", keptPods), fmt.Sprintf("%.0f ms, of which the node %d ms", milli(took), c.took["ready"].Milliseconds()), "<= 2 s"},
		{"… containers that are not what they were, pods ready and restarts after two periods of their probes",
			fmt.Sprintf("%d, %d, %d", touched, ready, restarts), fmt.Sprintf("0, %d, 0", keptPods)},
	}, nil
}

// containers are those that run, with the moment of their start.
func (c *cluster) containers(ctx context.Context) (map[string]int64, error) {
	engine, err := cri.Dial(ctx, filepath.Join(c.inRun, "cri.sock"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = engine.Close() }()
	list, err := engine.ListContainers(ctx, &rt.ListContainersRequest{Filter: &rt.ContainerFilter{State: &rt.ContainerStateValue{State: rt.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, ctr := range list.GetContainers() {
		st, err := engine.ContainerStatus(ctx, &rt.ContainerStatusRequest{ContainerId: ctr.GetId()})
		if status.Code(err) == codes.NotFound {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out[ctr.GetId()] = st.GetStatus().GetStartedAt()
	}
	return out, nil
}
