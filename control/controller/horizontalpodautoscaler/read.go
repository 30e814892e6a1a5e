package horizontalpodautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
)

// The shapes of k8s.io/metrics, as far as they are read: v1beta1 of metrics.k8s.io
// and external.metrics.k8s.io, and both versions of custom.metrics.k8s.io, which
// name the window differently.
type (
	podMetricsList struct {
		Items []struct {
			Metadata   metav1.ObjectMeta `json:"metadata"`
			Timestamp  metav1.Time       `json:"timestamp"`
			Window     metav1.Duration   `json:"window"`
			Containers []struct {
				Name  string              `json:"name"`
				Usage corev1.ResourceList `json:"usage"`
			} `json:"containers"`
		} `json:"items"`
	}
	valueList struct {
		Items []struct {
			Described corev1.ObjectReference `json:"describedObject"`
			Timestamp metav1.Time            `json:"timestamp"`
			Window    *int64                 `json:"windowSeconds"`
			OldWindow *int64                 `json:"window"`
			Value     resource.Quantity      `json:"value"`
		} `json:"items"`
	}
)

// usualWindow is that of a custom metric that names none.
const usualWindow = time.Minute

// get reads a document of a metrics API.
func (c *Controller) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	data, err := client.Raw(ctx, c.transport, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}

// use reads pods' use of a resource.
func (c *Controller) use(ctx context.Context, namespace string, selector labels.Selector, w wantedUse) (use, error) {
	var list podMetricsList
	path := "/apis/metrics.k8s.io/v1beta1/namespaces/" + url.PathEscape(namespace) + "/pods"
	if err := c.get(ctx, path, url.Values{"labelSelector": {selector.String()}}, &list); err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	out := use{}
	for i := range list.Items {
		item := &list.Items[i]
		total, known := int64(0), 0
		for _, ctr := range item.Containers {
			if w.container != "" && ctr.Name != w.container {
				continue
			}
			if q, ok := ctr.Usage[w.name]; ok {
				total, known = total+q.MilliValue(), known+1
			}
		}
		// A pod counts when all its containers are known, or the one that is meant.
		if w.container == "" && known == len(item.Containers) && known > 0 || w.container != "" && known == 1 {
			out[item.Metadata.Name] = measured{value: total, at: item.Timestamp.Time, window: item.Window.Duration}
		}
	}
	return out, nil
}

// podsMetric reads a custom metric of pods.
func (c *Controller) podsMetric(ctx context.Context, namespace, metric string, selector, picked labels.Selector) (use, error) {
	query := url.Values{"labelSelector": {selector.String()}}
	list, err := c.customValues(ctx, "namespaces/"+url.PathEscape(namespace)+"/pods/*/"+url.PathEscape(metric), query, picked)
	if err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := use{}
	for i := range list.Items {
		item := &list.Items[i]
		m := measured{value: item.Value.MilliValue(), at: item.Timestamp.Time, window: usualWindow}
		if item.Window == nil {
			item.Window = item.OldWindow
		}
		if item.Window != nil {
			m.window = time.Duration(*item.Window) * time.Second
		}
		out[item.Described.Name] = m
	}
	return out, nil
}

// objectMetric reads a custom metric of one object.
func (c *Controller) objectMetric(ctx context.Context, namespace string, m *autoscalingv2.ObjectMetricSource, picked labels.Selector) (int64, error) {
	gvk := schema.FromAPIVersionAndKind(m.DescribedObject.APIVersion, m.DescribedObject.Kind)
	path := "namespaces/" + url.PathEscape(namespace) + "/"
	if gvk.Group == "" && gvk.Kind == "Namespace" { // its own alone: the reference cannot lead out of it
		path += "metrics/" + url.PathEscape(m.Metric.Name)
	} else {
		kind, ok := c.kinds.Find(gvk)
		if !ok {
			return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: no matches for kind %q in group %q", gvk.Kind, gvk.Group)
		}
		path += kind.GroupResource().String() + "/" + url.PathEscape(m.DescribedObject.Name) + "/" + url.PathEscape(m.Metric.Name)
	}
	list, err := c.customValues(ctx, path, url.Values{}, picked)
	if err != nil {
		return 0, err
	}
	if len(list.Items) != 1 {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: the custom metrics API server returned %v results when we asked for exactly one", len(list.Items))
	}
	return list.Items[0].Value.MilliValue(), nil
}

func (c *Controller) customValues(ctx context.Context, path string, query url.Values, picked labels.Selector) (*valueList, error) {
	const group = "custom.metrics.k8s.io"
	list := &valueList{}
	version, err := c.custom.find(ctx, c, group, "v1beta2", "v1beta1")
	if err == nil {
		if s := picked.String(); s != "" {
			query.Set("metricLabelSelector", s)
		}
		err = c.get(ctx, "/apis/"+group+"/"+version+"/"+path, query, list)
	}
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return list, nil
}

// externalMetric reads a metric of something outside and adds its values up.
func (c *Controller) externalMetric(ctx context.Context, namespace, metric string, picked labels.Selector) (int64, error) {
	var list valueList
	query := url.Values{}
	if s := picked.String(); s != "" {
		query.Set("labelSelector", s)
	}
	path := "/apis/external.metrics.k8s.io/v1beta1/namespaces/" + url.PathEscape(namespace) + "/" + url.PathEscape(metric)
	if err := c.get(ctx, path, query, &list); err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	total := int64(0)
	for i := range list.Items {
		v := list.Items[i].Value.MilliValue()
		if v > 0 && total > math.MaxInt64-v {
			return math.MaxInt64, nil
		}
		total += v
	}
	return total, nil
}

// versionLife is how long it is believed which version somebody serves.
const versionLife = 10 * time.Minute

// versions remembers which version of a group is served. The zero value is ready;
// it may be used from any goroutine.
type versions struct {
	mu    sync.Mutex
	known string
	until time.Time
}

// find tells which of the candidates is served, the first that is. Nobody waits for
// another's question: two may ask the same.
func (v *versions) find(ctx context.Context, c *Controller, group string, candidates ...string) (string, error) {
	if known, ok := v.recall(); ok {
		return known, nil
	}
	for _, candidate := range candidates {
		var document metav1.APIResourceList
		err := c.get(ctx, "/apis/"+group+"/"+candidate, nil, &document)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		v.remember(candidate)
		return candidate, nil
	}
	return "", fmt.Errorf("no custom metrics API (%s) registered", group)
}

func (v *versions) recall() (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known, v.known != "" && time.Now().Before(v.until)
}

func (v *versions) remember(version string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known, v.until = version, time.Now().Add(versionLife)
}
