// Package extender asks programs beside the scheduler, over HTTP, in the words of
// kube-scheduler's extender API (k8s.io/kube-scheduler/extender/v1).
package extender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

const (
	// defaultTimeout is upstream's.
	defaultTimeout = 5 * time.Second
	// maxAnswer bounds an answer: the nodes of a large cluster, with status.
	maxAnswer = 256 << 20
	// scale brings an extender's points, 0 to 10, to those of plugins.
	scale = scheduler.MaxScore / extenderv1.MaxExtenderPriority
)

// HTTP is one extender. Its methods may be called from any goroutine.
type HTTP struct {
	cfg    configv1.Extender
	client *http.Client
}

// New makes an extender of its configuration.
func New(cfg configv1.Extender) (*HTTP, error) {
	if cfg.URLPrefix == "" {
		return nil, errors.New("extender: urlPrefix is empty")
	}
	transport := rest.TLSClientConfig{}
	if t := cfg.TLSConfig; t != nil {
		transport = rest.TLSClientConfig{
			Insecure: t.Insecure, ServerName: t.ServerName, CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile,
			CertData: t.CertData, KeyData: t.KeyData, CAData: t.CAData,
		}
	}
	if cfg.EnableHTTPS && transport.CAFile == "" && len(transport.CAData) == 0 {
		transport.Insecure = true // upstream's rule: without an authority nothing is verified
	}
	secure, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: transport})
	if err != nil {
		return nil, fmt.Errorf("extender %q: %w", cfg.URLPrefix, err)
	}
	timeout := cfg.HTTPTimeout.Duration
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &HTTP{cfg: cfg, client: &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{TLSClientConfig: secure, Proxy: http.ProxyFromEnvironment},
	}}, nil
}

// Name implements scheduler.Extender.
func (h *HTTP) Name() string { return "extender " + h.cfg.URLPrefix }

// Ignorable implements scheduler.Extender.
func (h *HTTP) Ignorable() bool { return h.cfg.Ignorable }

// Interested implements scheduler.Extender: pods that ask for a managed resource;
// all when none is.
func (h *HTTP) Interested(pod *corev1.Pod) bool {
	if len(h.cfg.ManagedResources) == 0 {
		return true
	}
	managed := func(list corev1.ResourceList) bool {
		return slices.ContainsFunc(h.cfg.ManagedResources, func(m configv1.ExtenderManagedResource) bool {
			_, ok := list[corev1.ResourceName(m.Name)]
			return ok
		})
	}
	wants := func(c corev1.Container) bool { return managed(c.Resources.Requests) || managed(c.Resources.Limits) }
	return slices.ContainsFunc(pod.Spec.Containers, wants) || slices.ContainsFunc(pod.Spec.InitContainers, wants)
}

// args is a question about nodes.
func (h *HTTP) args(pod *corev1.Pod, nodes []*scheduler.Node) *extenderv1.ExtenderArgs {
	if h.cfg.NodeCacheCapable {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		return &extenderv1.ExtenderArgs{Pod: pod, NodeNames: &names}
	}
	list := &corev1.NodeList{}
	for _, n := range nodes {
		list.Items = append(list.Items, *n.Node)
	}
	return &extenderv1.ExtenderArgs{Pod: pod, Nodes: list}
}

// Filter implements scheduler.Extender.
func (h *HTTP) Filter(pod *corev1.Pod, nodes []*scheduler.Node) ([]*scheduler.Node, map[string]scheduler.Reason, error) {
	if h.cfg.FilterVerb == "" {
		return nodes, nil, nil
	}
	var answer extenderv1.ExtenderFilterResult
	if err := h.send(context.Background(), h.cfg.FilterVerb, h.args(pod, nodes), &answer); err != nil {
		return nil, nil, err
	}
	if answer.Error != "" {
		return nil, nil, errors.New(answer.Error)
	}
	var names []string
	switch {
	case h.cfg.NodeCacheCapable && answer.NodeNames != nil:
		names = *answer.NodeNames
	case answer.Nodes != nil:
		for i := range answer.Nodes.Items {
			names = append(names, answer.Nodes.Items[i].Name)
		}
	}
	kept := make([]*scheduler.Node, 0, len(names))
	for _, name := range names {
		at := slices.IndexFunc(nodes, func(n *scheduler.Node) bool { return n.Name == name })
		if at < 0 {
			return nil, nil, fmt.Errorf("extender %q claims a filtered node %q which is not found in the input node list", h.cfg.URLPrefix, name)
		}
		kept = append(kept, nodes[at])
	}
	refused := map[string]scheduler.Reason{}
	for name, why := range answer.FailedNodes {
		refused[name] = scheduler.Reason{Text: why}
	}
	for name, why := range answer.FailedAndUnresolvableNodes {
		refused[name] = scheduler.Reason{Text: why, Final: true}
	}
	return kept, refused, nil
}

// Prioritize implements scheduler.Extender.
func (h *HTTP) Prioritize(pod *corev1.Pod, nodes []*scheduler.Node) (map[string]int64, error) {
	if h.cfg.PrioritizeVerb == "" {
		return nil, nil
	}
	var answer extenderv1.HostPriorityList
	if err := h.send(context.Background(), h.cfg.PrioritizeVerb, h.args(pod, nodes), &answer); err != nil {
		return nil, err
	}
	points := map[string]int64{}
	for _, p := range answer {
		points[p.Host] += p.Score * h.cfg.Weight * scale
	}
	return points, nil
}

// Preempt implements scheduler.Extender.
func (h *HTTP) Preempt(pod *corev1.Pod, ways map[string]scheduler.Victims) (map[string]scheduler.Victims, error) {
	if h.cfg.PreemptVerb == "" {
		return nil, nil
	}
	question := &extenderv1.ExtenderPreemptionArgs{Pod: pod}
	if h.cfg.NodeCacheCapable {
		question.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
	} else {
		question.NodeNameToVictims = map[string]*extenderv1.Victims{}
	}
	for name, w := range ways {
		if h.cfg.NodeCacheCapable {
			meta := &extenderv1.MetaVictims{NumPDBViolations: int64(w.Violations)}
			for _, p := range w.Pods {
				meta.Pods = append(meta.Pods, &extenderv1.MetaPod{UID: string(p.UID)})
			}
			question.NodeNameToMetaVictims[name] = meta
			continue
		}
		question.NodeNameToVictims[name] = &extenderv1.Victims{Pods: w.Pods, NumPDBViolations: int64(w.Violations)}
	}
	var answer extenderv1.ExtenderPreemptionResult
	if err := h.send(context.Background(), h.cfg.PreemptVerb, question, &answer); err != nil {
		return nil, err
	}
	kept := map[string]scheduler.Victims{}
	for name, meta := range answer.NodeNameToMetaVictims {
		way, ok := ways[name]
		if !ok {
			return nil, fmt.Errorf("extender %q frees node %q which it was not asked about", h.cfg.URLPrefix, name)
		}
		victims := scheduler.Victims{Node: way.Node, Violations: int(meta.NumPDBViolations)}
		for _, p := range meta.Pods {
			victim := on(way.Node, p.UID)
			if victim == nil {
				return nil, fmt.Errorf("extender %q claims to preempt pod (UID: %s) on node %q, but the pod is not found on that node", h.cfg.URLPrefix, p.UID, name)
			}
			victims.Pods = append(victims.Pods, victim)
		}
		kept[name] = victims
	}
	return kept, nil
}

func on(n *scheduler.Node, uid string) *corev1.Pod {
	for _, p := range n.Pods {
		if string(p.UID) == uid {
			return p.Pod
		}
	}
	return nil
}

// Binds implements scheduler.Extender.
func (h *HTTP) Binds() bool { return h.cfg.BindVerb != "" }

// Bind implements scheduler.Extender.
func (h *HTTP) Bind(ctx context.Context, pod *corev1.Pod, node string) error {
	var answer extenderv1.ExtenderBindingResult
	err := h.send(ctx, h.cfg.BindVerb, &extenderv1.ExtenderBindingArgs{
		PodName: pod.Name, PodNamespace: pod.Namespace, PodUID: pod.UID, Node: node,
	}, &answer)
	if err == nil && answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return err
}

// send asks one question.
func (h *HTTP) send(ctx context.Context, verb string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	url := strings.TrimRight(h.cfg.URLPrefix, "/") + "/" + verb
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := h.client.Do(r)
	if err != nil {
		return fmt.Errorf("ask extender: %w", err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, url, got.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(got.Body, maxAnswer)).Decode(answer)
}
