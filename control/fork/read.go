package fork

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

const (
	// MaxObjects bounds what is copied: at some 4 KiB each, 2 GiB.
	MaxObjects = 500_000
	// page is how many objects are read at once.
	page = 2000
	// registry precedes every key of an API server.
	registry = "/registry/"
)

// left are the kinds that are not copied: what is of no concern to decisions, what
// is nobody's to copy, and what would call somebody outside.
var left = []string{
	"events", "leases", "secrets", "mutatingwebhookconfigurations", "validatingwebhookconfigurations", "apiservices",
	"customresourcedefinitions", "certificatesigningrequests", "storageversionmigrations", "clustertrustbundles",
	"flowschemas", "prioritylevelconfigurations",
}

// copied is what reading has brought.
type copied struct {
	revision string
	objects  int
	unread   []string
	// pods are those of the live cluster, by UID.
	pods map[string]*corev1.Pod
}

// read copies everything that the caller may read, as of one revision, into an
// empty store. A revision that the live cluster has compacted meanwhile is an
// error: the caller tries again.
func read(ctx context.Context, live client.Transport, table []*kinds.Kind, into store.Store) (*copied, error) {
	c := &copied{pods: map[string]*corev1.Pod{}}
	seen := map[string]bool{}
	for _, k := range order(table) {
		if k.Storage == "" || seen[k.Storage] || slices.Contains(left, k.Resource) {
			continue
		}
		seen[k.Storage] = true
		err := c.kind(ctx, live, k, into)
		switch {
		case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
			c.unread = append(c.unread, k.GVR().GroupResource().String())
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", k.GVR().GroupResource(), err)
		}
	}
	return c, nil
}

// order puts the pods first: their list gives the revision.
func order(table []*kinds.Kind) []*kinds.Kind {
	sorted := slices.Clone(table)
	slices.SortStableFunc(sorted, func(a, b *kinds.Kind) int { return rank(a) - rank(b) })
	return sorted
}

func rank(k *kinds.Kind) int {
	if k.Resource == "pods" && k.GVK.Group == "" {
		return 0
	}
	return 1
}

// kind copies one kind, page by page.
func (c *copied) kind(ctx context.Context, live client.Transport, k *kinds.Kind, into store.Store) error {
	opts := metav1.ListOptions{Limit: page}
	if c.revision != "" {
		opts.ResourceVersion, opts.ResourceVersionMatch = c.revision, metav1.ResourceVersionMatchExact
	}
	for {
		list, err := live.List(ctx, target.Of(k.GVR(), ""), opts)
		if err != nil {
			return err
		}
		m, err := meta.ListAccessor(list)
		if err != nil {
			return err
		}
		if c.revision == "" {
			c.revision = m.GetResourceVersion()
		}
		err = meta.EachListItem(list, func(obj runtime.Object) error { return c.put(ctx, k, obj, into) })
		if err != nil || m.GetContinue() == "" {
			return err
		}
		opts = metav1.ListOptions{Limit: page, Continue: m.GetContinue()}
	}
}

// put stores one object as the API server stores them.
func (c *copied) put(ctx context.Context, k *kinds.Kind, obj runtime.Object, into store.Store) error {
	own, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("got a %T", obj)
	}
	if c.objects++; c.objects > MaxObjects {
		return fmt.Errorf("the cluster has more than %d objects", MaxObjects)
	}
	if pod, ok := own.(*corev1.Pod); ok {
		c.pods[string(pod.UID)] = pod.DeepCopy()
	}
	own.SetResourceVersion("")
	own.GetObjectKind().SetGroupVersionKind(k.GVK)
	data, err := json.Marshal(own)
	if err != nil {
		return fmt.Errorf("encode %s %q: %w", k.GVK.Kind, own.GetName(), err)
	}
	key := registry + k.Storage + "/" + own.GetName()
	if k.Namespaced {
		key = registry + k.Storage + "/" + own.GetNamespace() + "/" + own.GetName()
	}
	_, err = into.Create(ctx, key, data, 0)
	return err
}
