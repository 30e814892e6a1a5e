package sim_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

const gpuDriver = "gpu.example.com"

// gpus publishes a node's devices, with the models given.
func (p *plane) gpus(node string, models ...string) *resourcev1.ResourceSlice {
	p.Helper()
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node + "-gpus"}}
	s.Spec.Driver, s.Spec.NodeName = gpuDriver, &node
	s.Spec.Pool = resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1, Generation: 1}
	for i, m := range models {
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{
			Name: fmt.Sprint("gpu-", i), Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &m}},
			Capacity: map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("40Gi")}},
		})
	}
	return must[*resourcev1.ResourceSlice](p)(client.ResourceSlices.Create(p.Context(), p.admin, s))
}

// gpuClass makes the class of all these devices.
func (p *plane) gpuClass(name string, shape ...func(*resourcev1.DeviceClass)) {
	p.Helper()
	c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}}
	for _, f := range shape {
		f(c)
	}
	must[*resourcev1.DeviceClass](p)(client.DeviceClasses.Create(p.Context(), p.admin, c))
}

func exactly(class string, count int64, selectors ...string) resourcev1.DeviceRequest {
	r := resourcev1.DeviceRequest{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, Count: count, AllocationMode: resourcev1.DeviceAllocationModeExactCount}}
	for _, s := range selectors {
		r.Exactly.Selectors = append(r.Exactly.Selectors, resourcev1.DeviceSelector{CEL: &resourcev1.CELDeviceSelector{Expression: s}})
	}
	return r
}

func (p *plane) deviceClaim(name string, requests ...resourcev1.DeviceRequest) {
	p.Helper()
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.Devices.Requests = requests
	must[*resourcev1.ResourceClaim](p)(client.ResourceClaims.Create(p.Context(), p.admin, c))
}

func (p *plane) template(name string, requests ...resourcev1.DeviceRequest) {
	p.Helper()
	c := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.Spec.Devices.Requests = requests
	must[*resourcev1.ResourceClaimTemplate](p)(client.ResourceClaimTemplates.Create(p.Context(), p.admin, c))
}

func claiming(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
	}
}

func byTemplate(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimTemplateName: &name})
	}
}

func (p *plane) getClaim(name string) *resourcev1.ResourceClaim {
	p.Helper()
	return must[*resourcev1.ResourceClaim](p)(client.ResourceClaims.Get(p.Context(), p.admin, "default", name))
}

// devicesOf are the devices of all claims, "claim pool/device".
func (p *plane) devicesOf() (all []string) {
	p.Helper()
	claims, _, err := client.ResourceClaims.List(p.Context(), p.admin, "default", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	for _, c := range claims {
		if c.Status.Allocation == nil {
			continue
		}
		for _, r := range c.Status.Allocation.Devices.Results {
			all = append(all, r.Pool+"/"+r.Device)
		}
	}
	slices.Sort(all)
	return all
}

func (p *plane) deletePod(name string) {
	p.Helper()
	zero := int64(0)
	if err := client.Pods.Delete(p.Context(), p.admin, "default", name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		p.Fatal(err)
	}
}

// A pod waits for its claim, its class and its devices; it gets them as they come,
// and the claim says so.
func TestDevicesComeOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.addNode("n2")
		s, _ := p.schedule()
		p.addPod("a", "1", claiming("c"))
		p.settle()
		if d, ok := s.Records().Of("default", "a"); !ok || d.Message != `could not find ResourceClaim "default/c"` || d.Attempt != 0 {
			t.Errorf("without a claim: %+v", d)
		}
		p.deviceClaim("c", exactly("gpu", 2, `device.attributes["gpu.example.com"].model == "big"`))
		p.settle()
		if why := whyNot(p.pod("a")); !strings.Contains(why, "request r: device class gpu does not exist") {
			t.Errorf("without a class: %s", why)
		}
		p.gpuClass("gpu")
		p.settle()
		if why := whyNot(p.pod("a")); !strings.Contains(why, "0/2 nodes are available: 2 cannot allocate all claims") {
			t.Errorf("without devices: %s", why)
		}
		p.gpus("n1", "big", "small")
		p.settle()
		p.want("a", "")
		p.gpus("n2", "big", "small", "big")
		p.settle()
		p.want("a", "n2")
		c := p.getClaim("c")
		if c.Status.Allocation == nil || len(c.Status.ReservedFor) != 1 || c.Status.ReservedFor[0].Name != "a" || !slices.Contains(c.Finalizers, resourcev1.Finalizer) {
			t.Fatalf("claim: %v %+v", c.Finalizers, c.Status)
		}
		if have := p.devicesOf(); !slices.Equal(have, []string{"n2/gpu-0", "n2/gpu-2"}) {
			t.Errorf("devices %v", have)
		}
		// A second pod shares the claim, on the same node.
		p.addPod("b", "1", claiming("c"))
		p.settle()
		p.want("b", "n2")
		if c = p.getClaim("c"); len(c.Status.ReservedFor) != 2 {
			t.Errorf("reserved for %v", c.Status.ReservedFor)
		}
	})
}

// Many pods with claims of their own never share a device, and those that are left
// wait until one is free.
func TestDevicesAreTakenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		for _, n := range []string{"n1", "n2"} {
			p.addNode(n)
			p.gpus(n, "m", "m", "m")
		}
		p.template("one", exactly("gpu", 1))
		p.schedule()
		for i := range 8 {
			p.addPod(fmt.Sprint("p", i), "100m", byTemplate("one"))
		}
		p.settle()
		placed, left := 0, ""
		for i := range 8 {
			if name := fmt.Sprint("p", i); p.pod(name).Spec.NodeName != "" {
				placed++
			} else {
				left = name
			}
		}
		have := p.devicesOf()
		if distinct := slices.Compact(slices.Clone(have)); placed != 6 || len(have) != 6 || len(distinct) != 6 {
			t.Fatalf("%d pods placed, devices %v", placed, have)
		}
		for i := range 8 {
			if name := fmt.Sprint("p", i); p.pod(name).Spec.NodeName != "" {
				p.deletePod(name)
				break
			}
		}
		p.settle()
		p.settle()
		placed = 0
		for i := range 8 {
			if pod, err := client.Pods.Get(p.Context(), p.admin, "default", fmt.Sprint("p", i)); err == nil && pod.Spec.NodeName != "" {
				placed++
			}
		}
		if placed != 6 {
			t.Errorf("after one has gone %d are placed; %s: %s", placed, left, whyNot(p.pod(left)))
		}
	})
}

// Of alternatives the better one is taken, over all nodes; taints keep pods away,
// by slice or by rule, but for those that tolerate them.
func TestAlternativesAndTaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		p.addNode("n2")
		p.gpus("n1", "small", "small")
		p.gpus("n2", "big")
		p.schedule()
		either := func(name string) resourcev1.DeviceRequest {
			sub := func(model string) resourcev1.DeviceSubRequest {
				return resourcev1.DeviceSubRequest{Name: model, DeviceClassName: "gpu", Selectors: []resourcev1.DeviceSelector{
					{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf(`device.attributes["gpu.example.com"].model == %q`, model)}},
				}}
			}
			return resourcev1.DeviceRequest{Name: name, FirstAvailable: []resourcev1.DeviceSubRequest{sub("big"), sub("small")}}
		}
		p.deviceClaim("first", either("r"))
		p.deviceClaim("second", either("r"))
		p.addPod("a", "1", claiming("first"))
		p.settle()
		p.want("a", "n2")
		p.addPod("b", "1", claiming("second"))
		p.settle()
		p.want("b", "n1")
		if r := p.getClaim("second").Status.Allocation.Devices.Results[0]; r.Request != "r/small" {
			t.Errorf("request %q", r.Request)
		}
		pool := "n1"
		rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "sick"}}
		rule.Spec.DeviceSelector = &resourcev1.DeviceTaintSelector{Pool: &pool}
		rule.Spec.Taint = resourcev1.DeviceTaint{Key: "sick", Effect: resourcev1.DeviceTaintEffectNoSchedule}
		must[*resourcev1.DeviceTaintRule](p)(client.DeviceTaintRules.Create(p.Context(), p.admin, rule))
		p.settle() // a pod may be decided on before the rule is heard of
		p.deviceClaim("third", exactly("gpu", 1))
		p.addPod("c", "1", claiming("third"))
		p.settle()
		p.want("c", "")
		if err := client.DeviceTaintRules.Delete(p.Context(), p.admin, "", "sick", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.want("c", "n1")
	})
}

// An extended resource that a class stands for is had as devices by nodes without a
// device plugin: a claim is made for the pod, and its status tells which is which.
func TestExtendedResourcesAsDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.schedule()
		want := func(pod *corev1.Pod) {
			q := corev1.ResourceList{"example.com/gpu": resource.MustParse("2")}
			pod.Spec.Containers[0].Resources.Limits = q
			pod.Spec.Containers[0].Resources.Requests["example.com/gpu"] = q["example.com/gpu"]
		}
		p.addPod("a", "1", want)
		p.settle()
		if why := whyNot(p.pod("a")); !strings.Contains(why, "Insufficient example.com/gpu") {
			t.Errorf("without a class: %s", why)
		}
		name := "example.com/gpu"
		p.gpuClass("gpu", func(c *resourcev1.DeviceClass) { c.Spec.ExtendedResourceName = &name })
		p.settle()
		p.want("a", "")
		p.gpus("n1", "m", "m", "m")
		p.settle()
		p.want("a", "n1")
		s := p.pod("a").Status.ExtendedResourceClaimStatus
		if s == nil || len(s.RequestMappings) != 1 || s.RequestMappings[0].RequestName != "container-0-request-1" || s.RequestMappings[0].ContainerName != "c" {
			t.Fatalf("status %+v", s)
		}
		c := p.getClaim(s.ResourceClaimName)
		if len(c.Status.Allocation.Devices.Results) != 2 || len(c.Status.ReservedFor) != 1 || !strings.HasPrefix(c.Name, "a-extended-resources-") {
			t.Errorf("claim %s: %+v", c.Name, c.Status)
		}
		p.addPod("b", "1", want)
		p.settle()
		p.want("b", "")
		p.deletePod("a")
		p.settle()
		p.settle()
		p.want("b", "n1")
	})
}

// A device with conditions is waited for before the pod is bound; when it fails, the
// claim gives it back, and another is tried.
func TestBindingConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("fabric")
		p.addNode("n1")
		p.schedule()
		all := true
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}}
		s.Spec.Driver, s.Spec.AllNodes = gpuDriver, &all
		s.Spec.Pool = resourcev1.ResourcePool{Name: "fabric", ResourceSliceCount: 1, Generation: 1}
		for i := range 2 {
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{
				Name: fmt.Sprint("d", i), BindingConditions: []string{"attached"}, BindingFailureConditions: []string{"broken"},
			})
		}
		must[*resourcev1.ResourceSlice](p)(client.ResourceSlices.Create(p.Context(), p.admin, s))
		p.deviceClaim("c", exactly("fabric", 1))
		p.addPod("a", "1", claiming("c"))
		p.settle()
		p.want("a", "")
		if r := p.reasons("a"); !slices.Contains(r, "BindingConditionsPending") {
			t.Errorf("events %v", r)
		}
		condition := func(kind string) string {
			c := p.getClaim("c").DeepCopy()
			if c.Status.Allocation == nil {
				t.Fatalf("not allocated: %s", whyNot(p.pod("a")))
			}
			r := c.Status.Allocation.Devices.Results[0]
			c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: r.Driver, Pool: r.Pool, Device: r.Device, Conditions: []metav1.Condition{
				{Type: kind, Status: metav1.ConditionTrue, Reason: "Test", LastTransitionTime: metav1.Now()},
			}}}
			must[*resourcev1.ResourceClaim](p)(client.ResourceClaims.UpdateStatus(p.Context(), p.admin, c))
			return r.Device
		}
		condition("broken")
		time.Sleep(time.Minute)
		p.settle()
		p.want("a", "")
		condition("attached")
		p.settle()
		p.want("a", "n1")
		if c := p.getClaim("c"); len(c.Status.ReservedFor) != 1 {
			t.Errorf("claim %+v", c.Status)
		}
	})
}

// A selector that fails while it runs ends the attempt, with its words; a deleted
// claim's devices are free.
func TestBrokenSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		p.gpus("n1", "m")
		p.schedule()
		p.deviceClaim("c", exactly("gpu", 1, `device.attributes["gpu.example.com"].nothing == "x"`))
		p.addPod("a", "1", claiming("c"))
		p.settle()
		have := whyNot(p.pod("a"))
		if !strings.HasPrefix(have, "SchedulerError: running \"DynamicResources\" filter plugin: claim default/c: selector #0") || !strings.Contains(have, "CEL runtime error: no such key: nothing") {
			t.Errorf("%s", have)
		}
	})
}

// Access for administrators is had where the namespace allows it, beside those who
// have the device; who may write a status may not give devices out by that.
func TestAdministratorsAndBinders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		p.gpus("n1", "m")
		p.schedule()
		p.deviceClaim("c", exactly("gpu", 1))
		p.addPod("a", "1", claiming("c"))
		p.settle()
		p.want("a", "n1")
		yes := true
		admin := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "admin"}}
		admin.Spec.Devices.Requests = []resourcev1.DeviceRequest{exactly("gpu", 1)}
		admin.Spec.Devices.Requests[0].Exactly.AdminAccess = &yes
		_, err := client.ResourceClaims.Create(p.Context(), p.admin, admin)
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "requires the `resource.kubernetes.io/admin-access: true` label") {
			t.Fatalf("in a namespace of users: %v", err)
		}
		ns := must[*corev1.Namespace](p)(client.Namespaces.Get(p.Context(), p.admin, "", "default")).DeepCopy()
		ns.Labels = map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}
		must[*corev1.Namespace](p)(client.Namespaces.Update(p.Context(), p.admin, ns))
		p.settle()
		must[*resourcev1.ResourceClaim](p)(client.ResourceClaims.Create(p.Context(), p.admin, admin))
		p.addPod("b", "1", claiming("admin"))
		p.settle()
		p.want("b", "n1")

		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "status"}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims/status"}, Verbs: []string{"update"},
		}}}
		must[*rbacv1.ClusterRole](p)(client.ClusterRoles.Create(p.Context(), p.admin, role))
		must[*rbacv1.ClusterRoleBinding](p)(client.ClusterRoleBindings.Create(p.Context(), p.admin, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "bob"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "status"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "bob"}},
		}))
		p.settle()
		bob := p.server.Local(identity.Identity{Name: "bob", Groups: []string{identity.Authenticated}})
		stolen := p.getClaim("c").DeepCopy()
		stolen.Status.ReservedFor = nil
		if _, err := client.ResourceClaims.UpdateStatus(p.Context(), bob, stolen); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `is forbidden: User "bob" cannot update resource "resourceclaims/binding" in API group "resource.k8s.io" at the cluster scope`) {
			t.Errorf("bob frees a device: %v", err)
		}
	})
}

// stuck never gets an answer to a binding.
type stuck struct{ client.Transport }

func (s stuck) Create(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if at.Subresource == "binding" {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return s.Transport.Create(ctx, at, obj, opts)
}

// A scheduler that ends between the claim and the binding leaves devices given out;
// the next one goes on with them, and gives them to nobody else.
func TestRestartBetweenClaimAndBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.gpuClass("gpu")
		p.addNode("n1")
		p.addNode("n2")
		p.gpus("n1", "m")
		p.gpus("n2", "m")
		p.deviceClaim("c", exactly("gpu", 1))
		p.addPod("a", "1", claiming("c"))
		_, stop := p.scheduleVia(stuck{p.server.Local(identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}})})
		before := p.getClaim("c").Status
		if before.Allocation == nil || len(before.ReservedFor) != 1 || p.pod("a").Spec.NodeName != "" {
			t.Fatalf("claim %+v, pod on %q", before, p.pod("a").Spec.NodeName)
		}
		stop()
		p.schedule()
		p.settle()
		p.want("a", before.Allocation.Devices.Results[0].Pool)
		after := p.getClaim("c").Status
		if len(after.ReservedFor) != 1 || after.Allocation.Devices.Results[0].Pool != before.Allocation.Devices.Results[0].Pool {
			t.Errorf("claim %+v", after)
		}
	})
}

// A claim whose pod names another one, for two leaders have each made one, is released
// when the pod goes.
func TestClaimThatItsPodDoesNotName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.addNode("n1")
		p.gpus("n1", "a100")
		p.gpuClass("gpu")
		p.template("t", exactly("gpu", 1))
		p.schedule()
		p.addPod("a", "1", byTemplate("t"))
		p.settle()
		claims, _, err := client.ResourceClaims.List(t.Context(), p.admin, "default", metav1.ListOptions{})
		if err != nil || len(claims) != 1 || len(claims[0].Status.ReservedFor) != 1 {
			t.Fatalf("claims %v: %v", claims, err)
		}
		pod := must[*corev1.Pod](p)(client.Pods.Get(t.Context(), p.admin, "default", "a")).DeepCopy()
		other := "another"
		pod.Status.ResourceClaimStatuses[0].ResourceClaimName = &other
		must[*corev1.Pod](p)(client.Pods.UpdateStatus(t.Context(), p.admin, pod))
		if err := client.ResourceClaims.Delete(t.Context(), p.admin, "default", claims[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.deletePod("a")
		time.Sleep(time.Minute)
		p.settle()
		if _, err := client.ResourceClaims.Get(t.Context(), p.admin, "default", claims[0].Name); !apierrors.IsNotFound(err) {
			t.Errorf("the claim is there still: %v, %v", p.getClaim(claims[0].Name).Status, err)
		}
	})
}
