// Package register keeps a node's Node object and its lease: it registers the
// node, renews the lease every ten seconds and writes the status when it has
// changed, else every five minutes. Nobody else writes a Node's status, except
// that controllers own spec.podCIDR, taints and conditions of their own.
package register

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
)

// Rhythm of a node's signs of life unless Config says otherwise; upstream's
// numbers, on which the node controller's patience is built.
const (
	lookEvery   = 10 * time.Second
	leaseLength = 40
	reportEvery = 5 * time.Minute
	callTimeout = 10 * time.Second
	// renewals is how often a lease is renewed in its time, and how often a renewal is
	// tried in the time between two.
	renewals = 4
)

// registerRetry spaces attempts to register.
var registerRetry = backoff.Policy{Min: 200 * time.Millisecond, Max: 10 * time.Second}

// Config is what New needs; see agent.Config for the fields of the same name.
type Config struct {
	NodeName  string
	NodeIPs   []string
	Transport client.Transport
	Engine    cri.Engine
	// Disk is a path on the file system that pods use.
	Disk    string
	MaxPods int64
	Labels  map[string]string
	// Annotations are given to the Node when it is made.
	Annotations map[string]string
	Taints      []corev1.Taint
	Reserved    corev1.ResourceList
	Capacity    corev1.ResourceList
	Port        int32
	Version     string
	PodCIDR     string
	// Absent leaves it to others to make the Node: it is waited for.
	Absent bool
	// Features are those that the node declares, sorted (KEP-5328).
	Features []string
	// ProviderID names the machine to a cloud provider.
	ProviderID string
	// LeaseSeconds is how long the lease lasts; it is renewed four times as often.
	LeaseSeconds int32
	// LookEvery is how often the status is computed, ReportEvery how often it is
	// written though it hasn't changed.
	LookEvery, ReportEvery time.Duration
	// MaxImages bounds the images in the status; negative for no bound.
	MaxImages int
	// Fault is why the node isn't ready though its engine is, "" for nothing; nil
	// for never.
	Fault func() string
	// Withhold is what pods don't get besides, of a capacity; nil for nothing.
	Withhold func(capacity corev1.ResourceList) corev1.ResourceList
	// Extra are resources that come and go, how many there are and how many pods
	// may have; nil for none.
	Extra func() (capacity, allocatable corev1.ResourceList)
	// Pressures are the conditions by which the node says what it is short of;
	// nil for none.
	Pressures func() []corev1.NodeConditionType
	// Counts may be nil.
	Counts *tally.Tally
	Log    *slog.Logger
}

func (cfg Config) complete() Config {
	cfg.LeaseSeconds = cmp.Or(cfg.LeaseSeconds, leaseLength)
	cfg.LookEvery, cfg.ReportEvery = cmp.Or(cfg.LookEvery, lookEvery), cmp.Or(cfg.ReportEvery, reportEvery)
	cfg.MaxImages = cmp.Or(cfg.MaxImages, maxImages)
	return cfg
}

// Registrar keeps one node registered.
type Registrar struct {
	cfg        Config
	machine    machine
	registered chan struct{}
	kick       chan struct{}

	mu   sync.Mutex
	seen *corev1.Node
	cidr string

	// ours are the extra resources that have ever been there.
	ours map[corev1.ResourceName]bool

	// closed is whether pods may not be scheduled here, as Seen was told last.
	closed *bool
	began  start

	// owned by Run
	reported time.Time
	delay    time.Duration // of the next report that has no news
	lease    lease
	ready    *bool
	events   *client.Recorder
}

// New reads what the machine has; it fails when even that can't be read.
func New(cfg Config) (*Registrar, error) {
	cfg = cfg.complete()
	m, err := inspect(cfg)
	if err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	return &Registrar{
		began: start{agent: time.Now(), boot: booted()}, cfg: cfg, machine: m, registered: make(chan struct{}), kick: make(chan struct{}, 1), ours: map[corev1.ResourceName]bool{},
		events: client.NewRecorder(cfg.Transport, "kubelet", cfg.NodeName),
	}, nil
}

// Capacity is what the machine has.
func (r *Registrar) Capacity() corev1.ResourceList { return r.machine.capacity.DeepCopy() }

// Allocatable is what pods may use of it.
func (r *Registrar) Allocatable() corev1.ResourceList { return r.machine.allocatable.DeepCopy() }

// Registered closes when the API server has the Node.
func (r *Registrar) Registered() <-chan struct{} { return r.registered }

// Seen tells of the Node as the API has it, so that a pod CIDR reaches the
// engine at once. It never blocks.
func (r *Registrar) Seen(node *corev1.Node) {
	r.mu.Lock()
	first := r.seen == nil
	news := first || r.seen.Spec.PodCIDR != node.Spec.PodCIDR
	turned := r.closed != nil && *r.closed != node.Spec.Unschedulable
	r.seen, r.closed = node, &node.Spec.Unschedulable
	r.mu.Unlock()
	if turned {
		reason := map[bool]string{true: "NodeNotSchedulable", false: "NodeSchedulable"}[node.Spec.Unschedulable]
		r.say(corev1.EventTypeNormal, reason, fmt.Sprintf("Node %s status is now: %s", r.cfg.NodeName, reason))
	}
	if news {
		r.Kick()
	}
}

// Kick has the status looked at now, since something may have changed.
func (r *Registrar) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Run keeps the node registered until ctx ends.
func (r *Registrar) Run(ctx context.Context) error {
	if !r.register(ctx) {
		return nil
	}
	close(r.registered)
	r.events.EventRef(r.Reference(), corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	renew, look := time.NewTimer(0), time.NewTimer(r.cfg.LookEvery)
	defer renew.Stop()
	defer look.Stop()
	every := time.Duration(r.cfg.LeaseSeconds) * time.Second / renewals
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
			r.beat(ctx, false)
		case <-renew.C:
			r.renewal(ctx, renew, every)
			look.Reset(r.cfg.LookEvery) // one look does for both
		case <-look.C:
			look.Reset(r.cfg.LookEvery)
			if due(renew) {
				r.renewal(ctx, renew, every)
			} else {
				r.beat(ctx, false)
			}
		}
	}
}

// renewal is a beat that renews the lease, and sets the timer for the next one: in
// its time, or sooner when this one has failed.
func (r *Registrar) renewal(ctx context.Context, next *time.Timer, every time.Duration) {
	in := time.Now().Add(every)
	next.Reset(every)
	if !r.beat(ctx, true) {
		next.Reset(min(every/renewals, time.Until(in)))
	}
}

// due says whether a timer has fired at the same moment as another one did: which of
// two a select sees first is chance, and one beat does for both.
func due(t *time.Timer) bool {
	select {
	case <-t.C:
		return true
	default:
		return false
	}
}

// Reference is how events name the node: upstream uses the name as its uid.
func (r *Registrar) Reference() corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.cfg.NodeName, UID: types.UID(r.cfg.NodeName)}
}

// register creates the Node or brings labels of the one that is there up to date.
func (r *Registrar) register(ctx context.Context) bool {
	for failures := 1; ; failures++ {
		err := r.ensure(ctx)
		if err == nil {
			return true
		}
		if failures%10 == 1 {
			r.cfg.Log.Warn("can't register the node; trying again", "node", r.cfg.NodeName, "err", err)
		}
		select {
		case <-time.After(registerRetry.After(failures)):
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Registrar) ensure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	fresh := r.object(ctx)
	r.began.asked(time.Now())
	var made *corev1.Node
	err := error(apierrors.NewAlreadyExists(client.Nodes.GroupResource(), r.cfg.NodeName))
	if !r.cfg.Absent {
		made, err = client.Nodes.Create(ctx, r.cfg.Transport, fresh)
	}
	if err == nil {
		r.began.had(r.cfg.Counts, time.Now())
		r.saw(made)
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create node: %w", err)
	}
	have, err := client.Nodes.Get(ctx, r.cfg.Transport, "", r.cfg.NodeName)
	if err != nil {
		return fmt.Errorf("get node: %w", err)
	}
	r.saw(have)
	return r.relabel(ctx, have, fresh.Labels)
}

func (r *Registrar) saw(node *corev1.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = node
}

func (r *Registrar) relabel(ctx context.Context, have *corev1.Node, want map[string]string) error {
	missing := unlike(have.Labels, want)
	if len(missing) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": missing}})
	if err != nil {
		return fmt.Errorf("encode labels: %w", err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(r.cfg.NodeName)
	if _, err := client.Nodes.Patch(ctx, r.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data}); err != nil {
		return fmt.Errorf("label node: %w", err)
	}
	return nil
}

// unlike are those of the labels wanted that are not there, or otherwise.
func unlike(have, want map[string]string) map[string]string {
	missing := map[string]string{}
	for k, v := range want {
		if at, there := have[k]; !there || at != v {
			missing[k] = v
		}
	}
	return missing
}

// Initial is the Node as it would be created now, for decisions that can't wait
// for the API server.
func (r *Registrar) Initial() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.cfg.NodeName, Labels: r.labels()},
		Spec:       corev1.NodeSpec{Taints: r.cfg.Taints},
		Status:     corev1.NodeStatus{Capacity: r.Capacity(), Allocatable: r.Allocatable(), NodeInfo: r.machine.info},
	}
}

// object is the Node as it is created.
func (r *Registrar) object(ctx context.Context) *corev1.Node {
	annotations := map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	maps.Copy(annotations, r.cfg.Annotations)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.cfg.NodeName, Labels: r.labels(), Annotations: annotations},
		Spec:       corev1.NodeSpec{Taints: r.cfg.Taints, ProviderID: r.cfg.ProviderID},
	}
	node.Status = r.status(ctx, corev1.NodeStatus{})
	return node
}

func (r *Registrar) labels() map[string]string {
	labels := map[string]string{
		corev1.LabelHostname:    r.cfg.NodeName,
		"beta.kubernetes.io/os": r.machine.info.OperatingSystem, "beta.kubernetes.io/arch": r.machine.info.Architecture,
	}
	maps.Copy(labels, r.facts())
	maps.Copy(labels, r.cfg.Labels)
	return labels
}

// facts are the labels that say what the machine is. They are set again with each look
// at the status, as upstream does, since pods are placed by them: of the others that
// the node came with, whoever may change it may make what they like.
func (r *Registrar) facts() map[string]string {
	return map[string]string{corev1.LabelOSStable: r.machine.info.OperatingSystem, corev1.LabelArchStable: r.machine.info.Architecture}
}

// beat is one heartbeat; it says whether the lease, if it was to be, is renewed. It is
// done on a goroutine that ends with it: the one that waits for the next, of which a
// process may have thousands, keeps a small stack.
func (r *Registrar) beat(ctx context.Context, renew bool) bool {
	renewed := make(chan bool, 1)
	go func() { renewed <- r.speak(ctx, renew) }()
	return <-renewed
}

// speak renews the lease, and writes the status when it is due.
func (r *Registrar) speak(ctx context.Context, renew bool) (renewed bool) {
	renewed = true
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r.network(ctx)
	if renew {
		if err := r.renew(ctx); err != nil {
			renewed = false
			r.cfg.Log.Warn("can't renew the node's lease", "err", err)
		}
	}
	if err := r.report(ctx); err != nil {
		r.cfg.Log.Warn("can't write the node's status", "err", err)
	}
	return renewed
}

// network tells the engine the pods' addresses as soon as they are known.
func (r *Registrar) network(ctx context.Context) {
	r.mu.Lock()
	cidr := r.cfg.PodCIDR
	if r.seen != nil && len(r.seen.Spec.PodCIDRs) > 0 {
		cidr = strings.Join(r.seen.Spec.PodCIDRs, ",")
	} else if r.seen != nil && r.seen.Spec.PodCIDR != "" {
		cidr = r.seen.Spec.PodCIDR
	}
	told := r.cidr
	r.mu.Unlock()
	if cidr == "" || cidr == told {
		return
	}
	_, err := r.cfg.Engine.UpdateRuntimeConfig(ctx, &rt.UpdateRuntimeConfigRequest{
		RuntimeConfig: &rt.RuntimeConfig{NetworkConfig: &rt.NetworkConfig{PodCidr: cidr}},
	})
	if err != nil {
		r.cfg.Log.Warn("the engine refuses the pods' network", "cidr", cidr, "err", err)
		return
	}
	r.mu.Lock()
	r.cidr = cidr
	r.mu.Unlock()
}
