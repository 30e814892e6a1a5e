package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

const (
	// listed is how many objects a measured list has.
	listed = 10_000
	// weighed is how many objects are weighed, beyond that many.
	weighed = 30_000
	// filling is how many clients make them at the same time.
	filling = 16
)

// memory measures what a stored object weighs in the server's process, once what a
// server needs anyway (its program's pages, buffers, the log that etcd keeps in
// memory) is there: what many more of them add.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	if _, _, err := client.ConfigMaps.List(ctx, b.wire, metav1.NamespaceDefault, metav1.ListOptions{}); err != nil {
		return nil, err
	}
	create := func(prefix string) func(ctx context.Context, i int64) error {
		return func(ctx context.Context, i int64) error {
			o := object(fmt.Sprintf("%s-%d", prefix, i))
			o.Namespace = "kube-public"
			_, err := client.ConfigMaps.Create(ctx, b.wire, o)
			return err
		}
	}
	var at [3]memory
	for i, count := range []int64{0, listed, weighed} {
		if err := fill(ctx, count, create(fmt.Sprintf("l-%d", i))); err != nil {
			return nil, err
		}
		if err := b.settle(); err != nil {
			return nil, err
		}
		at[i] = b.memoryNow()
	}
	return []row{
		{"memory of a stored 1 KiB object", at[2].since(at[1], weighed) + fmt.Sprintf(", of %d after the first %d", weighed, listed), "<= 3 KiB"},
		{"… of one of the first, with all that comes once", at[1].since(at[0], listed), ""},
	}, nil
}

// memory is what a process has of its own, and of files that it maps, in KiB.
type memory struct{ own, files int64 }

func (b *bench) memoryNow() (m memory) {
	status := "/proc/" + strconv.Itoa(b.pid) + "/status"
	m.own, _ = field(status, "RssAnon:")
	m.files, _ = field(status, "RssFile:")
	return m
}

// since is what each of count objects has added.
func (m memory) since(before memory, count int64) string {
	own, files := float64(m.own-before.own)/float64(count), float64(m.files-before.files)/float64(count)
	return fmt.Sprintf("%.1f KiB: %.1f of the process, etcd's own included, %.1f of files it maps", own+files, own, files)
}

// fill does something count times.
func fill(ctx context.Context, count int64, do func(context.Context, int64) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range filling {
		all.Go(func() {
			for i := next.Add(1); i <= count && failed.Load() == nil; i = next.Add(1) {
				if err := do(ctx, i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// listedPod is a pod as clusters are full of: two containers with environment,
// probes, resources and volumes; some 2 KiB before anything has happened to it.
func listedPod(i int64) *corev1.Pod {
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/healthy", "--deep"}}}, PeriodSeconds: 10}
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "registry.example/team/" + name + ":v1.2.3", Args: []string{"--listen=:8080", "--verbose"},
			Env:            []corev1.EnvVar{{Name: "REGION", Value: "north"}, {Name: "SHARD", Value: fmt.Sprint(i % 16)}},
			ReadinessProbe: probe, LivenessProbe: probe,
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web-5d4f8c7b9c-%05d", i),
			Labels:          map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9c", "tier": fmt.Sprint(i % 8)},
			Annotations:     map[string]string{"example.com/checksum": "0123456789abcdef0123456789abcdef"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4f8c7b9c", UID: "5f0c4c3e-6f7c-4f0f-9a55-0f6f0a7d2d11"}}},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%100), ServiceAccountName: "default",
			Containers: []corev1.Container{container("web"), container("sidecar")},
			Volumes:    []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
	}
}

// pods makes the pods that lists are of.
func (b *bench) pods(ctx context.Context) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	if _, err := client.ServiceAccounts.Create(ctx, b.wire, account); err != nil {
		return err
	}
	return fill(ctx, listed, func(ctx context.Context, i int64) error {
		_, err := client.Pods.Create(ctx, b.wire, listedPod(i))
		return err
	})
}

// lists measures the memory of stored objects and whole lists of pods over HTTPS,
// without what a client does with them.
func lists(ctx context.Context) (rows []row, err error) {
	b, err := serveApart(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if rows, err = b.memory(ctx); err != nil {
		return nil, err
	}
	if err := b.pods(ctx); err != nil {
		return nil, err
	}
	plain, err := b.transport()
	if err != nil {
		return nil, err
	}
	for _, of := range []struct{ name, media, query, aim string }{
		{"protobuf", "application/vnd.kubernetes.protobuf", "", "122 ms"},
		{"JSON", "application/json", "", "406 ms"},
		{"protobuf, from the cache as it is", "application/vnd.kubernetes.protobuf", "?resourceVersion=0", ""},
		{"JSON, in pages of 500", "application/json", "?limit=500", ""},
	} {
		c, size, best, err := b.measureList(ctx, plain, "/api/v1/namespaces/default/pods"+of.query, of.media)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{fmt.Sprintf("list of %d pods, %s", listed, of.name),
			fmt.Sprintf("%d ms at best, %.0f MB/s, %d ms of processor, its client %d", best.Milliseconds(), float64(size)/best.Seconds()/1e6,
				c.server.Milliseconds(), c.here.Milliseconds()), of.aim})
	}
	return rows, nil
}

func (b *bench) measureList(ctx context.Context, plain *http.Client, path, media string) (c cost, size int64, best time.Duration, err error) {
	if _, err := fetch(ctx, plain, b.URL+path, media); err != nil {
		return c, 0, 0, err
	}
	server, here := b.spent(), spent()
	rounds := 0
	for begin := time.Now(); time.Since(begin) < *measureFor; rounds++ {
		start := time.Now()
		if size, err = fetch(ctx, plain, b.URL+path, media); err != nil {
			return c, 0, 0, err
		}
		if took := time.Since(start); best == 0 || took < best {
			best = took
		}
	}
	c.server, c.here = (b.spent()-server)/time.Duration(rounds), (spent()-here)/time.Duration(rounds)
	return c, size, best, nil
}

func fetch(ctx context.Context, c *http.Client, url, media string) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Accept", media)
	r.Header.Set("Accept-Encoding", "identity")
	answer, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("list: %s", answer.Status)
	}
	return io.Copy(io.Discard, answer.Body)
}
