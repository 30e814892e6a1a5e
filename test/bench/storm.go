package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

const (
	// storming is how many clients list everything at the same time, again and again.
	storming = 200
	// stormFor is how long they do.
	stormFor = 10 * time.Second
)

// storm measures what 200 clients that list 10,000 pods without a limit do to the
// server's memory, and to an administrator who gets one object meanwhile.
func storm(ctx context.Context) (rows []row, err error) {
	b, err := serveApart(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.pods(ctx); err != nil {
		return nil, err
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bench:somebody"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: somebody}}}
	if _, err := b.wire.Create(ctx, target.Of(rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), ""), binding, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	for _, of := range []struct{ name, media, query string }{
		{"protobuf", "application/vnd.kubernetes.protobuf", ""},
		{"JSON", "application/json", ""},
		{"as a table", "application/json;as=Table;v=v1;g=meta.k8s.io", ""},
		{"JSON, by label", "application/json", "?labelSelector=app%3Dweb"},
	} {
		more, err := b.stormOf(ctx, of.name, "/api/v1/namespaces/default/pods"+of.query, of.media)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more)
	}
	return rows, nil
}

func (b *bench) stormOf(ctx context.Context, name, path, media string) (row, error) {
	if err := b.settle(); err != nil {
		return row{}, err
	}
	before, _ := b.weight()
	ctx, cancel := context.WithTimeout(ctx, stormFor)
	defer cancel()
	var all sync.WaitGroup
	var size, answered, refused, most, slowest, gets atomic.Int64
	for range storming {
		all.Go(func() {
			way, err := b.asUser()
			if err != nil {
				return
			}
			defer way.CloseIdleConnections()
			for ctx.Err() == nil {
				n, err := fetch(ctx, way, b.URL+path, media)
				switch {
				case err == nil:
					answered.Add(1)
					size.Store(n)
				case ctx.Err() == nil:
					refused.Add(1)
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			now, _ := b.weight()
			most.Store(max(most.Load(), now))
			begin := time.Now()
			if _, err := client.Pods.Get(ctx, b.wire, "default", listedPod(1).Name); err == nil {
				gets.Add(1)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
			time.Sleep(20 * time.Millisecond)
		}
	})
	all.Wait()
	growth := most.Load() - before
	return row{fmt.Sprintf("%d clients list %d pods without a limit, %s", storming, listed, name),
		fmt.Sprintf("%d lists of %.1f MB answered, %d refused; the server grew by %.0f MB; of an administrator's %d gets the slowest took %d ms",
			answered.Load(), float64(size.Load())/1e6, refused.Load(), float64(growth)/1e6, gets.Load(), time.Duration(slowest.Load()).Milliseconds()),
		"<= 3x a list for each seat, <= 1 s"}, nil
}
