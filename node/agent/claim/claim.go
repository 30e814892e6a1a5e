// Package claim is the node's side of dynamic resource allocation: it has DRA
// drivers prepare the ResourceClaims of pods before their sandboxes are made,
// puts what the drivers prepared into containers, and has them unprepare it when
// the last pod of a claim is down (k8s.io/kubelet/pkg/apis/dra). What is prepared
// outlives the agent, so that nothing is left prepared for nobody.
package claim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/keylock"
	"github.com/sampan-dev/sampan/node/agent/checkpoint"
	"github.com/sampan-dev/sampan/node/agent/tally"
)

// Config is what New needs.
type Config struct {
	Transport client.Transport
	NodeName  string
	// Path is where the state of claims is kept.
	Path string
	// Changed is called when the health of devices has changed. It must not block.
	Changed func()
	// Counts may be nil.
	Counts *tally.Tally
	Log    *slog.Logger
}

// Claims knows the node's claims and drivers. Its methods may be called from any
// goroutine.
type Claims struct {
	cfg Config
	// busy: a claim is prepared or unprepared by one at a time.
	busy keylock.Locks

	mu sync.Mutex
	// drivers are those that are registered, the newest last: in a rolling update one has
	// several instances, and when the newer one fails the older one serves again.
	drivers map[string][]*driver
	claims  map[string]*Info
	health  map[device]reported
	wipes   map[string]*time.Timer
}

// Info is one claim that is prepared, or being so.
type Info struct {
	Namespace, Name string
	UID             types.UID
	// Pods are the UIDs of the pods that use it.
	Pods map[string]bool
	// Devices are what drivers prepared, by driver.
	Devices  map[string][]Device
	Prepared bool
	// Ending: drivers have been asked to unprepare it, and it is nobody's any more
	// until all of them have.
	Ending bool `json:",omitempty"`
}

// Device is one prepared device.
type Device struct {
	Requests   []string
	Pool, Name string
	Share      string `json:",omitempty"`
	CDI        []string
}

// New reads which claims are prepared.
func New(cfg Config) *Claims {
	c := &Claims{cfg: cfg, drivers: map[string][]*driver{}, claims: map[string]*Info{}, health: map[device]reported{}, wipes: map[string]*time.Timer{}}
	if _, err := checkpoint.Load(cfg.Path, &c.claims); err != nil {
		cfg.Log.Error("which claims are prepared is not known any more", "err", err)
	}
	return c
}

func key(namespace, name string) string { return namespace + "/" + name }

// save writes the state; the lock is held.
func (c *Claims) save() error { return checkpoint.Save(c.cfg.Path, c.claims) }

// Used reports whether a pod has claims at all.
func Used(pod *corev1.Pod) bool {
	return len(pod.Spec.ResourceClaims) > 0 || pod.Status.ExtendedResourceClaimStatus != nil
}

// name is a claim that a pod uses, and whether it was made for the pod.
type name struct {
	name string
	owns bool
}

// names are the claims of a pod.
func names(pod *corev1.Pod) ([]name, error) {
	var list []name
	for i := range pod.Spec.ResourceClaims {
		n, err := resolve(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if n.name != "" {
			list = append(list, n)
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		list = append(list, name{s.ResourceClaimName, true})
	}
	return list, nil
}

// resolve finds the claim that a pod means: the one that it names, or the one
// that a controller made for it from a template; "" when it needs none.
func resolve(pod *corev1.Pod, c *corev1.PodResourceClaim) (name, error) {
	if c.ResourceClaimName != nil {
		return name{*c.ResourceClaimName, false}, nil
	}
	for _, s := range pod.Status.ResourceClaimStatuses {
		if s.Name != c.Name {
			continue
		}
		if s.ResourceClaimName == nil {
			return name{}, nil
		}
		return name{*s.ResourceClaimName, true}, nil
	}
	return name{}, fmt.Errorf("pod %s/%s: ResourceClaim %q has not been made from its template yet", pod.Namespace, pod.Name, c.Name)
}

// Prepare has the drivers prepare everything that a pod has claimed. It may be
// called again; what is prepared stays as it is.
func (c *Claims) Prepare(ctx context.Context, pod *corev1.Pod) (err error) {
	if !Used(pod) {
		return nil
	}
	begin := time.Now()
	defer func() { c.cfg.Counts.ClaimsHandled("PrepareResources", time.Since(begin), err) }()
	list, err := names(pod)
	if err != nil {
		return err
	}
	// All are looked at before any is noted: what is noted is unprepared before the pod
	// can go, which takes drivers that may never have been here.
	objects := make([]*resourcev1.ResourceClaim, len(list))
	for i, n := range list {
		if objects[i], err = c.look(ctx, pod, n); err != nil {
			return fmt.Errorf("prepare dynamic resources: %w", err)
		}
	}
	for _, obj := range objects {
		if err := c.prepare(ctx, pod, obj); err != nil {
			return fmt.Errorf("prepare dynamic resources: %w", err)
		}
	}
	return nil
}

// look finds a claim that a pod may use, and whose drivers are here.
func (c *Claims) look(ctx context.Context, pod *corev1.Pod, n name) (*resourcev1.ResourceClaim, error) {
	obj, err := client.ResourceClaims.Get(ctx, c.cfg.Transport, pod.Namespace, n.name)
	if err != nil {
		return nil, fmt.Errorf("fetch ResourceClaim %s: %w", n.name, err)
	}
	if n.owns {
		if err := ownedBy(pod, obj); err != nil {
			return nil, err
		}
	}
	if !reservedFor(pod, obj) {
		return nil, fmt.Errorf("pod %s (%s) is not allowed to use ResourceClaim %s (%s)", pod.Name, pod.UID, n.name, obj.UID)
	}
	if obj.Status.Allocation == nil {
		return nil, fmt.Errorf("ResourceClaim %s: not allocated", n.name)
	}
	for _, driver := range driversOf(obj) {
		if _, err := c.driver(driver); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

func (c *Claims) prepare(ctx context.Context, pod *corev1.Pod, obj *resourcev1.ResourceClaim) error {
	unlock := c.busy.Lock(key(obj.Namespace, obj.Name))
	defer unlock()
	info, done, err := c.enter(pod, obj)
	if err != nil || done {
		return err
	}
	prepared := map[string][]Device{}
	for _, driver := range driversOf(obj) {
		devices, err := c.ask(ctx, driver, obj)
		if err != nil {
			return err
		}
		prepared[driver] = devices
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	info.Devices, info.Prepared = prepared, true
	if err := c.save(); err != nil {
		return fmt.Errorf("checkpoint ResourceClaim state: %w", err)
	}
	return nil
}

// enter notes, before a driver is asked, that a pod uses a claim: so that it is
// unprepared even if nobody ever hears the driver's answer.
func (c *Claims) enter(pod *corev1.Pod, obj *resourcev1.ResourceClaim) (info *Info, done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := key(obj.Namespace, obj.Name)
	info = c.claims[at]
	if info != nil && info.UID != obj.UID {
		return nil, false, fmt.Errorf("old ResourceClaim with same name %s and different UID %s still exists (previous pod force-deleted?!)", obj.Name, info.UID)
	}
	if info != nil && info.Ending {
		return nil, false, fmt.Errorf("ResourceClaim %s is being unprepared", obj.Name)
	}
	if info == nil {
		info = &Info{Namespace: obj.Namespace, Name: obj.Name, UID: obj.UID, Pods: map[string]bool{}, Devices: map[string][]Device{}}
		for _, driver := range driversOf(obj) {
			info.Devices[driver] = nil
		}
		c.claims[at] = info
	}
	if info.Prepared && info.Pods[string(pod.UID)] {
		return info, true, nil
	}
	info.Pods[string(pod.UID)] = true
	if err := c.save(); err != nil {
		return nil, false, fmt.Errorf("checkpoint ResourceClaim cache: %w", err)
	}
	return info, info.Prepared, nil
}

func driversOf(obj *resourcev1.ResourceClaim) []string {
	var list []string
	for _, r := range obj.Status.Allocation.Devices.Results {
		if !slices.Contains(list, r.Driver) {
			list = append(list, r.Driver)
		}
	}
	slices.Sort(list)
	return list
}

// ask has one driver prepare one claim.
func (c *Claims) ask(ctx context.Context, name string, obj *resourcev1.ResourceClaim) ([]Device, error) {
	d, err := c.driver(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	wanted := &draapi.Claim{Namespace: obj.Namespace, Uid: string(obj.UID), Name: obj.Name}
	got, err := d.client.NodePrepareResources(ctx, &draapi.NodePrepareResourcesRequest{Claims: []*draapi.Claim{wanted}})
	if err != nil {
		return nil, fmt.Errorf("NodePrepareResources: %w", err)
	}
	for uid := range got.GetClaims() {
		if uid != wanted.GetUid() {
			return nil, fmt.Errorf("NodePrepareResources returned result for unknown claim UID %s", uid)
		}
	}
	answer, ok := got.GetClaims()[wanted.GetUid()]
	if !ok {
		return nil, fmt.Errorf("NodePrepareResources skipped %d ResourceClaims", 1)
	}
	if answer.GetError() != "" {
		return nil, fmt.Errorf("NodePrepareResources failed for ResourceClaim %s: %s", obj.Name, answer.GetError())
	}
	var list []Device
	for _, v := range answer.GetDevices() {
		list = append(list, Device{Requests: v.GetRequestNames(), Pool: v.GetPoolName(), Name: v.GetDeviceName(), Share: v.GetShareId(), CDI: v.GetCdiDeviceIds()})
	}
	return list, nil
}

// Release takes a pod, of which nothing runs any more, from its claims; claims
// that no pod uses are unprepared. It may be called again after an error.
func (c *Claims) Release(ctx context.Context, uid string) (err error) {
	mine := c.usedBy(uid)
	if len(mine) == 0 {
		return nil
	}
	begin := time.Now()
	defer func() { c.cfg.Counts.ClaimsHandled("UnprepareResources", time.Since(begin), err) }()
	for _, at := range mine {
		if err := c.release(ctx, at, uid); err != nil {
			return fmt.Errorf("unprepare dynamic resources: %w", err)
		}
	}
	return nil
}

// InUse is how many claims there are on this node, by driver, and how many in all.
func (c *Claims) InUse() (byDriver map[string]int, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byDriver = map[string]int{}
	for _, info := range c.claims {
		for driver := range info.Devices {
			byDriver[driver]++
		}
	}
	return byDriver, len(c.claims)
}

func (c *Claims) usedBy(uid string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for at, info := range c.claims {
		if info.Pods[uid] {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	return list
}

func (c *Claims) release(ctx context.Context, at, uid string) error {
	unlock := c.busy.Lock(at)
	defer unlock()
	c.mu.Lock()
	info := c.claims[at]
	if info == nil {
		c.mu.Unlock()
		return nil
	}
	last := len(info.Pods) == 1 && info.Pods[uid]
	if !last {
		delete(info.Pods, uid)
		err := c.save()
		c.mu.Unlock()
		return err
	}
	var err error
	if !info.Ending {
		info.Ending = true
		err = c.save()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for driver := range info.Devices {
		if err := c.undo(ctx, driver, info); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.claims, at)
	return c.save()
}

func (c *Claims) undo(ctx context.Context, name string, info *Info) error {
	d, err := c.driver(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	wanted := &draapi.Claim{Namespace: info.Namespace, Uid: string(info.UID), Name: info.Name}
	got, err := d.client.NodeUnprepareResources(ctx, &draapi.NodeUnprepareResourcesRequest{Claims: []*draapi.Claim{wanted}})
	if err != nil {
		return fmt.Errorf("NodeUnprepareResources: %w", err)
	}
	answer, ok := got.GetClaims()[wanted.GetUid()]
	if !ok {
		return fmt.Errorf("NodeUnprepareResources skipped %d ResourceClaims", 1)
	}
	if answer.GetError() != "" {
		return fmt.Errorf("NodeUnprepareResources failed for ResourceClaim %s: %s", info.Name, answer.GetError())
	}
	return nil
}

// Strangers are the pods that claims are prepared for and that known doesn't
// have.
func (c *Claims) Strangers(known map[string]bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, info := range c.claims {
		for uid := range info.Pods {
			if !known[uid] && !slices.Contains(list, uid) {
				list = append(list, uid)
			}
		}
	}
	return list
}

// ownedBy: a claim that was made for a pod belongs to it alone.
func ownedBy(pod *corev1.Pod, obj *resourcev1.ResourceClaim) error {
	for _, ref := range obj.OwnerReferences {
		if ref.Controller != nil && *ref.Controller && ref.UID == pod.UID {
			return nil
		}
	}
	return fmt.Errorf("ResourceClaim %s/%s was not created for pod %s/%s (pod is not owner)", obj.Namespace, obj.Name, pod.Namespace, pod.Name)
}

func reservedFor(pod *corev1.Pod, obj *resourcev1.ResourceClaim) bool {
	return slices.ContainsFunc(obj.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == pod.UID })
}
