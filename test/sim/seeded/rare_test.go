package seeded

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// Names of what only few lives have, each there for a controller that would have
// nothing to do otherwise.
const (
	outside   = "outside"   // a service whose endpoints are written by hand
	balanced  = "balanced"  // a service of type LoadBalancer
	brief     = "brief-job" // a job that is removed once it has ended
	scratch   = "scratch"   // a pod with a volume of its own
	gadgets   = "gadgets"   // a class of devices, and a deployment that claims one each
	extraCIDR = "extra"     // a range of addresses that comes and goes
)

// rareLives puts on the agenda what only few lives have.
func (w *world) rareLives() {
	for _, begin := range []func(){w.outsideLife, w.balancedLife, w.briefLife, w.scratchLife, w.gadgetsLife, w.rangeLife, w.tokenLife} {
		if w.rng.IntN(6) == 0 {
			begin()
		}
	}
}

// outsideLife makes a service without a selector, and endpoints for it that change.
func (w *world) outsideLife() {
	w.ask("create service "+outside, func() error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: outside}}
		s.Spec = corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "p", Port: 80}}}
		_, err := client.Services.Create(w.t.Context(), w.admin, s)
		return err
	})
	addresses := func(from int) []corev1.EndpointSubset {
		var all []corev1.EndpointAddress
		for i := range 1 + from%3 {
			all = append(all, corev1.EndpointAddress{IP: fmt.Sprintf("198.51.100.%d", from+i)})
		}
		return []corev1.EndpointSubset{{Addresses: all, Ports: []corev1.EndpointPort{{Name: "p", Port: 8080, Protocol: corev1.ProtocolTCP}}}}
	}
	made := func() error {
		e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: outside}, Subsets: addresses(1)}
		_, err := client.Endpoints.Create(w.t.Context(), w.admin, e)
		return err
	}
	w.ask("create endpoints "+outside, made)
	for range 1 + w.rng.IntN(3) {
		n := 1 + w.rng.IntN(200)
		w.sometime(fmt.Sprintf("endpoints of %s from %d on", outside, n), func() error {
			return changed(w, client.Endpoints, "free", outside, func(e *corev1.Endpoints) { e.Subsets = addresses(n) })
		})
	}
	if w.rng.IntN(2) == 0 {
		w.again("endpoints "+outside, func(opts metav1.DeleteOptions) error {
			return client.Endpoints.Delete(w.t.Context(), w.admin, "free", outside, opts)
		}, made)
	}
}

// balancedLife makes a service that is reached from outside, and lets it stop being so.
func (w *world) balancedLife() {
	made := func() error {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: balanced}}
		s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": balanced}, Ports: []corev1.ServicePort{{Port: 80}}}
		_, err := client.Services.Create(w.t.Context(), w.admin, s)
		return err
	}
	w.ask("create service "+balanced, made)
	switch w.rng.IntN(3) {
	case 0:
		w.again("service "+balanced, func(opts metav1.DeleteOptions) error {
			return client.Services.Delete(w.t.Context(), w.admin, "free", balanced, opts)
		}, made)
	case 1:
		w.sometime(balanced+" is for the cluster alone", func() error {
			return changed(w, client.Services, "free", balanced, func(s *corev1.Service) {
				s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeClusterIP, 0
			})
		})
	}
}

// briefLife makes a job that is to go some seconds after it has ended.
func (w *world) briefLife() {
	ttl, retries := int32(w.rng.IntN(20)), int32(1)
	w.sometime(fmt.Sprintf("create job %s, for %d s", brief, ttl), func() error {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: brief}}
		j.Spec = batchv1.JobSpec{TTLSecondsAfterFinished: &ttl, BackoffLimit: &retries, Template: w.template(brief, w.oneOf("work", "flaky"))}
		j.Spec.Template.Labels = nil
		j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		_, err := client.Jobs.Create(w.t.Context(), w.admin, j)
		return err
	})
}

// scratchLife makes a pod that brings its own claim, and another one of its name later:
// the claim of the first must not become the second's.
func (w *world) scratchLife() {
	class, zero := "none", int64(0)
	made := func() error {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: scratch}, Spec: w.template(scratch, "app").Spec}
		p.Spec.TerminationGracePeriodSeconds = &zero
		p.Spec.Volumes = []corev1.Volume{{Name: "own", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}}}}}
		_, err := client.Pods.Create(w.t.Context(), w.admin, p)
		return err
	}
	w.ask("create pod "+scratch, made)
	for range 1 + w.rng.IntN(2) {
		w.again("pod "+scratch, func(opts metav1.DeleteOptions) error {
			return client.Pods.Delete(w.t.Context(), w.admin, "free", scratch, opts)
		}, made)
	}
}

// gadgetsLife gives each node one device, and makes a deployment whose pods claim one
// each.
func (w *world) gadgetsLife() {
	w.ask("create device class", func() error {
		c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: gadgets}}
		_, err := client.DeviceClasses.Create(w.t.Context(), w.admin, c)
		return err
	})
	for _, m := range w.nodes {
		w.ask("create devices of "+m.name, func() error {
			s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: m.name + "-" + gadgets}}
			s.Spec = resourcev1.ResourceSliceSpec{Driver: "gadgets.test", NodeName: &m.name,
				Pool: resourcev1.ResourcePool{Name: m.name, ResourceSliceCount: 1, Generation: 1}, Devices: []resourcev1.Device{{Name: "one"}}}
			_, err := client.ResourceSlices.Create(w.t.Context(), w.admin, s)
			return err
		})
	}
	w.ask("create claim template", func() error {
		t := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: gadgets}}
		t.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: gadgets}}}
		_, err := client.ResourceClaimTemplates.Create(w.t.Context(), w.admin, t)
		return err
	})
	name, zero := gadgets, int64(0)
	w.plain(gadgets, int32(1+w.rng.IntN(2)), 50, "", func(t *corev1.PodTemplateSpec) {
		t.Spec.TerminationGracePeriodSeconds = &zero
		t.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "one", ResourceClaimTemplateName: &name}}
	})
	for range 1 + w.rng.IntN(3) {
		w.sometime("delete the pods of "+gadgets, func() error {
			return w.admin.DeleteCollection(w.t.Context(), target.Of(client.Pods.GroupVersionResource, "free"), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=" + gadgets})
		})
	}
}

// rangeLife adds a range of service addresses, and takes it away.
func (w *world) rangeLife() {
	made := func() error {
		c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: extraCIDR}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"203.0.113.0/24"}}}
		_, err := client.ServiceCIDRs.Create(w.t.Context(), w.admin, c)
		return err
	}
	w.ask("create range", made)
	w.again("range", func(opts metav1.DeleteOptions) error {
		return client.ServiceCIDRs.Delete(w.t.Context(), w.admin, "", extraCIDR, opts)
	}, made)
}

// tokenLife makes a token for joining that runs out.
func (w *world) tokenLife() {
	w.ask("create token", func() error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token"}
		s.StringData = map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true",
			"expiration": time.Now().Add(w.within(busy)).UTC().Format(time.RFC3339)}
		_, err := client.Secrets.Create(w.t.Context(), w.admin, s)
		return err
	})
}

// finalRare asks whether what the rare lives had has become what was asked for.
func (w *world) finalRare(ctx context.Context, pods []*corev1.Pod) {
	w.finalOutside(ctx)
	w.finalBalanced(ctx)
	w.finalClaims(ctx, pods)
	w.finalRobot(ctx)
	w.finalInfo(ctx)
	if j, err := client.Jobs.Get(ctx, w.admin, "free", brief); err == nil && ended(j) {
		w.fail("job %s has ended and is there still: %+v", brief, j.Status)
	}
	if _, err := client.Secrets.Get(ctx, w.admin, metav1.NamespaceSystem, "bootstrap-token-abcdef"); err == nil {
		w.fail("the token that has run out is there still")
	}
}

// finalOutside: endpoints written by hand have slices that say the same.
func (w *world) finalOutside(ctx context.Context) {
	var want, have []string
	if e, err := client.Endpoints.Get(ctx, w.admin, "free", outside); err == nil {
		for _, s := range e.Subsets {
			for _, a := range s.Addresses {
				want = append(want, a.IP)
			}
		}
	}
	mirrored, _, err := client.EndpointSlices.List(ctx, w.admin, "free", metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + outside})
	if err != nil {
		w.fail("list the slices of %s: %v", outside, err)
	}
	for _, s := range mirrored {
		for _, e := range s.Endpoints {
			have = append(have, e.Addresses...)
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		w.fail("service %s has endpoints %v, its slices say %v", outside, want, have)
	}
}

// finalBalanced: a service that is reached from outside says where, and no other does.
func (w *world) finalBalanced(ctx context.Context) {
	s, err := client.Services.Get(ctx, w.admin, "free", balanced)
	if err != nil {
		return
	}
	if is, said := s.Spec.Type == corev1.ServiceTypeLoadBalancer, len(s.Status.LoadBalancer.Ingress) > 0; is != said || is != (len(s.Finalizers) > 0) {
		w.fail("service %s is of type %s and has addresses %v, finalizers %v", balanced, s.Spec.Type, s.Status.LoadBalancer.Ingress, s.Finalizers)
	}
}

// finalClaims: claims made for a pod are that pod's, and go with it; no device is two
// claims'.
func (w *world) finalClaims(ctx context.Context, pods []*corev1.Pod) {
	alive := map[string]bool{}
	for _, p := range pods {
		alive[string(p.UID)] = true
	}
	orphaned := func(what string, m metav1.Object) {
		for _, ref := range m.GetOwnerReferences() {
			if ref.Kind == "Pod" && !alive[string(ref.UID)] {
				w.fail("%s %s outlives its pod %s", what, m.GetName(), ref.Name)
			}
		}
	}
	volumes, _, err := client.PersistentVolumeClaims.List(ctx, w.admin, "free", metav1.ListOptions{})
	if err != nil {
		w.fail("list claims: %v", err)
	}
	for _, c := range volumes {
		orphaned("claim", c)
	}
	claims, _, err := client.ResourceClaims.List(ctx, w.admin, "free", metav1.ListOptions{})
	if err != nil {
		w.fail("list resource claims: %v", err)
	}
	devices := map[string]string{}
	for _, c := range claims {
		orphaned("resource claim", c)
		for _, r := range c.Status.ReservedFor {
			if !alive[string(r.UID)] {
				w.fail("resource claim %s is reserved for pod %s, which is gone", c.Name, r.Name)
			}
		}
		if c.Status.Allocation == nil {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			// Of two schedulers neither has heard at once what the other has given away.
			if other := devices[r.Pool]; other != "" {
				w.fail("device %s/%s is of claims %s and %s", r.Pool, r.Device, other, c.Name)
			}
			devices[r.Pool] = c.Name
		}
	}
	if p := slices.IndexFunc(pods, func(p *corev1.Pod) bool { return p.Name == scratch }); p >= 0 {
		c, err := client.PersistentVolumeClaims.Get(ctx, w.admin, "free", scratch+"-own")
		// What somebody left as nobody's is kept from all pods of that name.
		if err != nil || !metav1.IsControlledBy(c, pods[p]) && metav1.GetControllerOf(c) != nil {
			w.fail("pod %s has no claim of its own: %v", scratch, err)
		}
	}
}
