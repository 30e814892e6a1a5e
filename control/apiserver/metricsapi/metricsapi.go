// Package metricsapi serves metrics.k8s.io/v1beta1 out of what the nodes say of
// themselves: what kubectl top shows and the horizontal pod autoscaler reads.
// Nothing is stored. The nodes are asked only while somebody asks here.
//
// Facts: k8s.io/metrics and what the metrics server of upstream's clusters
// answers: usage of cpu as the rate over a window, of memory as the working set;
// a pod is shown once all its containers are known.
package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sampan-dev/sampan/internal/target"
)

// GroupVersion is what is served.
var GroupVersion = v1beta1.SchemeGroupVersion

const root = "/apis/metrics.k8s.io/v1beta1"

// Reader reads objects as the server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Config is what an API needs. All fields must be set.
type Config struct {
	Objects Reader
	// Ask gets a node's /metrics/resource. It ends with ctx.
	Ask func(ctx context.Context, node string) (io.ReadCloser, error)
	// Fail writes an error as an API status, in the media type that r asks for.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
	Log  *slog.Logger
}

// API answers requests that have been authorised. It may be used from any
// goroutine.
type API struct {
	cfg     Config
	sampler *sampler
}

// New returns an API that asks no node until it is asked.
func New(cfg Config) *API { return &API{cfg: cfg, sampler: newSampler(cfg)} }

// Close ends what asks the nodes; requests that still come fail.
func (a *API) Close() { a.sampler.stop() }

// place is what a path names.
type place struct {
	resource, namespace, name string
}

// ServeHTTP implements http.Handler for the group version and all below.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, within := strings.CutPrefix(r.URL.Path, root)
	rest = strings.Trim(rest, "/")
	if !within {
		http.NotFound(w, r)
		return
	}
	if rest == "" {
		a.write(w, r, resources())
		return
	}
	at, ok := parse(rest)
	switch {
	case !ok:
		a.cfg.Fail(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound,
			Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{}}})
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead || r.URL.Query().Get("watch") != "":
		a.cfg.Fail(w, r, apierrors.NewMethodNotSupported(schema.GroupResource{Group: GroupVersion.Group, Resource: at.resource}, strings.ToLower(r.Method)))
		return
	}
	answer, err := a.answer(r, at)
	if err != nil {
		a.cfg.Fail(w, r, err)
		return
	}
	a.write(w, r, answer)
}

// parse reads "nodes[/name]", "pods" and "namespaces/ns/pods[/name]".
func parse(rest string) (place, bool) {
	parts := strings.Split(rest, "/")
	at := place{}
	if parts[0] == "namespaces" && len(parts) > 2 {
		at.namespace = parts[1]
		parts = parts[2:]
	}
	at.resource = parts[0]
	if len(parts) > 1 {
		at.name = parts[1]
	}
	switch {
	case len(parts) > 2, at.resource != "nodes" && at.resource != "pods":
		return at, false
	case at.resource == "nodes":
		return at, at.namespace == ""
	}
	return at, at.namespace != "" || at.name == ""
}

// answer makes the object or the list.
func (a *API) answer(r *http.Request, at place) (runtime.Object, error) {
	ctx := r.Context()
	if at.name != "" {
		return a.one(ctx, at)
	}
	pick, err := pickOf(r)
	if err != nil {
		return nil, err
	}
	if at.resource == "nodes" {
		nodes, err := listed[*corev1.Node](ctx, a.cfg.Objects, "nodes", "", pick)
		if err != nil {
			return nil, err
		}
		return a.nodes(ctx, nodes)
	}
	pods, err := listed[*corev1.Pod](ctx, a.cfg.Objects, "pods", at.namespace, pick)
	if err != nil {
		return nil, err
	}
	return a.pods(ctx, pods)
}

func (a *API) one(ctx context.Context, at place) (runtime.Object, error) {
	obj, err := a.cfg.Objects.Get(ctx, target.Of(corev1.SchemeGroupVersion.WithResource(at.resource), at.namespace).Object(at.name), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read %s %q: %w", at.resource, at.name, err)
	}
	switch known := obj.(type) {
	case *corev1.Node:
		list, err := a.nodes(ctx, []*corev1.Node{known})
		if err != nil {
			return nil, err
		}
		if len(list.Items) > 0 {
			list.Items[0].TypeMeta = kind("NodeMetrics")
			return &list.Items[0], nil
		}
	case *corev1.Pod:
		list, err := a.pods(ctx, []*corev1.Pod{known})
		if err != nil {
			return nil, err
		}
		if len(list.Items) > 0 {
			list.Items[0].TypeMeta = kind("PodMetrics")
			return &list.Items[0], nil
		}
	}
	if at.resource == "nodes" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: GroupVersion.Group, Resource: "nodemetrics"}, at.name)
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: GroupVersion.Group, Resource: "podmetrics"}, at.namespace+"/"+at.name)
}

func (a *API) nodes(ctx context.Context, nodes []*corev1.Node) (*v1beta1.NodeMetricsList, error) {
	all, err := a.sampler.samples(ctx)
	if err != nil {
		return nil, err
	}
	list := &v1beta1.NodeMetricsList{TypeMeta: kind("NodeMetricsList"), Items: []v1beta1.NodeMetrics{}}
	for _, n := range nodes {
		pair, ok := all[n.Name]
		if !ok {
			continue
		}
		u, ok := rate(pair.before.node, pair.now.node)
		if !ok {
			continue
		}
		list.Items = append(list.Items, v1beta1.NodeMetrics{ObjectMeta: about("", n.Name, n.Labels),
			Timestamp: metav1.NewTime(u.at), Window: metav1.Duration{Duration: u.window}, Usage: u.list()})
	}
	return list, nil
}

func (a *API) pods(ctx context.Context, pods []*corev1.Pod) (*v1beta1.PodMetricsList, error) {
	all, err := a.sampler.samples(ctx)
	if err != nil {
		return nil, err
	}
	list := &v1beta1.PodMetricsList{TypeMeta: kind("PodMetricsList"), Items: []v1beta1.PodMetrics{}}
	for _, p := range pods {
		pair, ok := all[p.Spec.NodeName]
		if !ok {
			continue
		}
		if m, ok := podMetrics(p, pair); ok {
			list.Items = append(list.Items, m)
		}
	}
	return list, nil
}

// podMetrics sums a pod up; false as long as one of its containers is unknown.
func podMetrics(p *corev1.Pod, pair pair) (v1beta1.PodMetrics, bool) {
	key := podKey{p.Namespace, p.Name}
	now := pair.now.pods[key]
	if len(now) == 0 {
		return v1beta1.PodMetrics{}, false
	}
	m := v1beta1.PodMetrics{ObjectMeta: about(p.Namespace, p.Name, p.Labels)}
	for _, name := range order(p, now) {
		u, ok := rate(pair.before.pods[key][name], now[name])
		if !ok {
			return v1beta1.PodMetrics{}, false
		}
		if m.Timestamp.IsZero() || u.at.Before(m.Timestamp.Time) { // the oldest counts
			m.Timestamp, m.Window = metav1.NewTime(u.at), metav1.Duration{Duration: u.window}
		}
		m.Containers = append(m.Containers, v1beta1.ContainerMetrics{Name: name, Usage: u.list()})
	}
	return m, true
}

// selection is what a list's selectors ask for.
type selection struct {
	labels string
	fields fields.Selector
}

func pickOf(r *http.Request) (selection, error) {
	q := r.URL.Query()
	s := selection{labels: q.Get("labelSelector")}
	if _, err := labels.Parse(s.labels); err != nil {
		return s, apierrors.NewBadRequest(err.Error())
	}
	var err error
	if s.fields, err = fields.ParseSelector(q.Get("fieldSelector")); err != nil {
		return s, apierrors.NewBadRequest(err.Error())
	}
	return s, nil
}

// listed reads the objects that a selection is about: whose metrics are shown is
// decided by their labels.
func listed[T metav1.Object](ctx context.Context, objects Reader, resource, namespace string, s selection) ([]T, error) {
	list, err := objects.List(ctx, target.Of(corev1.SchemeGroupVersion.WithResource(resource), namespace), metav1.ListOptions{LabelSelector: s.labels})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", resource, err)
	}
	var all []T
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		item, ok := obj.(T)
		if !ok {
			return errors.New("not what was asked for")
		}
		set := fields.Set{"metadata.name": item.GetName(), "metadata.namespace": item.GetNamespace()}
		if s.fields.Matches(set) {
			all = append(all, item)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of %s: %w", resource, err)
	}
	return all, nil
}

func about(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, CreationTimestamp: metav1.NewTime(time.Now())}
}
