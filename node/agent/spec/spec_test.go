package spec

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

func TestExpand(t *testing.T) {
	vars := Lookup([]Var{{"A", "1"}, {"B", "2"}})
	for in, want := range map[string]string{
		"":          "",
		"plain":     "plain",
		"$(A)":      "1",
		"x$(A)$(B)": "x12",
		"$(C)":      "$(C)",
		"$$(A)":     "$(A)",
		"$$":        "$",
		"$":         "$",
		"$A":        "$A",
		"$(A":       "$(A",
		"$()":       "$()",
		"$$$(A)":    "$1",
	} {
		if got := Expand(in, vars); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

// store is a volume.Source out of two maps.
type store struct {
	maps    map[string]*corev1.ConfigMap
	secrets map[string]*corev1.Secret
}

func (s store) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if cm := s.maps[name]; cm != nil {
		return cm, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
}

func (s store) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if sec := s.secrets[name]; sec != nil {
		return sec, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
}

func service(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
}

func TestEnvironment(t *testing.T) {
	yes := true
	c := &corev1.Container{
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi")}},
		EnvFrom:   []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
		Env: []corev1.EnvVar{
			{Name: "PLAIN", Value: "v"},
			{Name: "USES", Value: "$(PLAIN)-$(P_k)-$(LATER)-$(DB_SERVICE_HOST)"},
			{Name: "LATER", Value: "x"},
			{Name: "ME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "NONE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Key: "k", Optional: &yes}}},
		},
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{"app": "web"}}}
	e := Environment{
		Pod: pod, Container: c, Source: store{maps: map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"k": "from"}}}},
		Facts: downward.Facts{Allocatable: corev1.ResourceList{"cpu": resource.MustParse("3500m")}},
		Services: []*corev1.Service{
			service("default", "kubernetes", "10.0.0.1", corev1.ServicePort{Name: "https", Port: 443}),
			service("ns", "db", "10.0.0.2", corev1.ServicePort{Port: 5432}),
			service("other", "far", "10.0.0.3", corev1.ServicePort{Port: 1}),
			service("ns", "headless", "None", corev1.ServicePort{Port: 1}),
		},
	}
	vars, err := e.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	get := Lookup(vars)
	for name, want := range map[string]string{
		"PLAIN": "v", "USES": "v-from-$(LATER)-10.0.0.2", "P_k": "from", "ME": "web", "MEM": "64", "CPU": "4",
		"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT_HTTPS": "443", "KUBERNETES_PORT": "tcp://10.0.0.1:443",
		"DB_PORT_5432_TCP_ADDR": "10.0.0.2",
	} {
		if got, _ := get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"NONE", "FAR_SERVICE_HOST", "HEADLESS_SERVICE_HOST"} {
		if got, ok := get(name); ok {
			t.Errorf("%s = %q, want it unset", name, got)
		}
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "absent"}}})
	if _, err := e.Resolve(t.Context()); err == nil || err.Error() != "couldn't find key absent in ConfigMap ns/cm" {
		t.Errorf("a missing key gives %v", err)
	}
}

func TestDNS(t *testing.T) {
	node := Node{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Resolver: Resolver{Servers: []string{"9.9.9.9"}, Searches: []string{"corp"}}}
	value := "2"
	for name, c := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"cluster first": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
			"[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:5]"},
		"host network": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, "[9.9.9.9] [corp] []"},
		"host network, cluster first": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true},
			"[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:5]"},
		"none": {corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}}}, "[1.1.1.1] [] []"},
		"options replaced": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, DNSConfig: &corev1.PodDNSConfig{
			Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &value}, {Name: "edns0"}}}},
			"[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp] [ndots:2 edns0]"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: c.spec}
		got := DNS(pod, node)
		text := list(got.Servers) + " " + list(got.Searches) + " " + list(got.Options)
		if text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

func list(s []string) string { return "[" + strings.Join(s, " ") + "]" }

func TestParseResolver(t *testing.T) {
	got, err := ParseResolver(strings.NewReader("# comment\nnameserver 1.2.3.4\nsearch a b .\noptions ndots:1 timeout:2\nnonsense\n"))
	if err != nil || !slices.Equal(got.Servers, []string{"1.2.3.4"}) || !slices.Equal(got.Searches, []string{"a", "b"}) || len(got.Options) != 2 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestHostname(t *testing.T) {
	yes, long := true, strings.Repeat("x", 64)
	for name, c := range map[string]struct {
		spec         corev1.PodSpec
		host, domain string
	}{
		"the pod's name": {corev1.PodSpec{}, "web-0", ""},
		"own":            {corev1.PodSpec{Hostname: "h"}, "h", ""},
		"subdomain":      {corev1.PodSpec{Subdomain: "sub"}, "web-0", "sub.ns.svc.cluster.local"},
		"override":       {corev1.PodSpec{Hostname: "h", Subdomain: "sub", HostnameOverride: &long}, long[:63], ""},
		"whole":          {corev1.PodSpec{Subdomain: "sub", SetHostnameAsFQDN: &yes}, "web-0.sub.ns.svc.cluster.local", "sub.ns.svc.cluster.local"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-0"}, Spec: c.spec}
		if h, d := Hostname(pod, "cluster.local"); h != c.host || d != c.domain {
			t.Errorf("%s: %q %q, want %q %q", name, h, d, c.host, c.domain)
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: strings.Repeat("x", 62) + "-y"}}
	whole := &corev1.Pod{Spec: corev1.PodSpec{Hostname: "h", Subdomain: strings.Repeat("s", 40), SetHostnameAsFQDN: &yes}}
	whole.Namespace = "ns"
	if err := CheckHostname(whole, "cluster.local"); err != nil {
		t.Error(err)
	}
	whole.Spec.Subdomain += "ssss"
	want := "failed to construct FQDN from pod hostname and cluster domain, FQDN h." + whole.Spec.Subdomain +
		".ns.svc.cluster.local is too long (64 characters is the max, 67 characters requested)"
	if err := CheckHostname(whole, "cluster.local"); err == nil || err.Error() != want {
		t.Error(err)
	}
	if h, _ := Hostname(pod, ""); h != strings.Repeat("x", 62) {
		t.Errorf("a long name becomes %q", h)
	}
}

func TestHostsFile(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web-0"}, Spec: corev1.PodSpec{
		Subdomain: "sub", HostAliases: []corev1.HostAlias{{IP: "5.5.5.5", Hostnames: []string{"a", "b"}}}}}
	got := Hosts(pod, []string{"10.0.0.2"}, "cluster.local", "")
	for _, want := range []string{"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n", "10.0.0.2\tweb-0.sub.ns.svc.cluster.local\tweb-0\n", "5.5.5.5\ta\tb\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestResources(t *testing.T) {
	req := func(cpu, mem, cpuLimit, memLimit string) corev1.Container {
		r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
		for name, pair := range map[corev1.ResourceName][2]string{"cpu": {cpu, cpuLimit}, "memory": {mem, memLimit}} {
			if pair[0] != "" {
				r.Requests[name] = resource.MustParse(pair[0])
			}
			if pair[1] != "" {
				r.Limits[name] = resource.MustParse(pair[1])
			}
		}
		return corev1.Container{Name: "c", Resources: r}
	}
	node := Node{CgroupRoot: "sampan", Memory: 1 << 30, PidsLimit: 100}
	for name, c := range map[string]struct {
		container     corev1.Container
		qos           corev1.PodQOSClass
		parent        string
		shares, quota int64
		memory, oom   int64
	}{
		"best effort": {req("", "", "", ""), corev1.PodQOSBestEffort, "/sampan/kubepods/besteffort/podu", 2, 0, 0, 1000},
		"burstable":   {req("250m", "256Mi", "", ""), corev1.PodQOSBurstable, "/sampan/kubepods/burstable/podu", 256, 0, 0, 750},
		"guaranteed":  {req("1", "512Mi", "1", "512Mi"), corev1.PodQOSGuaranteed, "/sampan/kubepods/podu", 1024, 100000, 512 << 20, -997},
		"limits only": {req("", "", "5m", "1Mi"), corev1.PodQOSGuaranteed, "/sampan/kubepods/podu", 5, 1000, 1 << 20, -997},
		"all memory":  {req("", "1Gi", "", ""), corev1.PodQOSBurstable, "/sampan/kubepods/burstable/podu", 2, 0, 0, 3},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c.container}}}
		if got := QoS(pod); got != c.qos {
			t.Errorf("%s: class %s, want %s", name, got, c.qos)
		}
		if got := CgroupParent(pod, node); got != c.parent {
			t.Errorf("%s: cgroup %s, want %s", name, got, c.parent)
		}
		r := ContainerResources(pod, &pod.Spec.Containers[0], node)
		got := [...]int64{r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes, r.OomScoreAdj}
		if want := [...]int64{c.shares, c.quota, c.memory, c.oom}; got != want {
			t.Errorf("%s: shares, quota, memory, oom = %v, want %v", name, got, want)
		}
		if PodResources(pod, node).Unified["pids.max"] != "100" {
			t.Errorf("%s: the pod's processes aren't bounded", name)
		}
	}
}

func TestSecurity(t *testing.T) {
	yes, no, root, user := true, false, int64(0), int64(1000)
	profile := "p.json"
	make := func(pod *corev1.PodSecurityContext, c *corev1.SecurityContext, img Image) Make {
		return Make{
			Pod:       &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{SecurityContext: pod}},
			Container: &corev1.Container{Name: "c", SecurityContext: c}, Image: img, Node: Node{SeccompRoot: "/sec"},
		}
	}
	fails := map[string]struct {
		m    Make
		want string
	}{
		"runs as root by spec": {make(&corev1.PodSecurityContext{RunAsNonRoot: &yes}, &corev1.SecurityContext{RunAsUser: &root}, Image{}),
			`container's runAsUser breaks non-root policy (pod: "p_ns(u)", container: c)`},
		"image says nothing": {make(&corev1.PodSecurityContext{RunAsNonRoot: &yes}, nil, Image{}),
			`container has runAsNonRoot and image will run as root (pod: "p_ns(u)", container: c)`},
		"image names a user": {make(nil, &corev1.SecurityContext{RunAsNonRoot: &yes}, Image{User: "www"}),
			`container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: "p_ns(u)", container: c)`},
	}
	for name, c := range fails {
		if _, err := c.m.Config(); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	cfg, err := make(&corev1.PodSecurityContext{FSGroup: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}},
		&corev1.SecurityContext{RunAsUser: &user, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes}, Image{}).Config()
	if err != nil {
		t.Fatal(err)
	}
	sc := cfg.GetLinux().GetSecurityContext()
	if sc.GetRunAsUser().GetValue() != 1000 || !sc.GetNoNewPrivs() || !sc.GetReadonlyRootfs() || !slices.Equal(sc.GetSupplementalGroups(), []int64{1000}) {
		t.Errorf("security context %v", sc)
	}
	if sc.GetSeccomp().GetLocalhostRef() != "/sec/p.json" {
		t.Errorf("seccomp profile %v", sc.GetSeccomp())
	}
	plain, err := make(nil, nil, Image{}).Config()
	if err != nil {
		t.Fatal(err)
	}
	if p := plain.GetLinux().GetSecurityContext(); p.GetSeccomp().GetProfileType() != rt.SecurityProfile_RuntimeDefault || len(p.GetMaskedPaths()) == 0 {
		t.Errorf("a container that asks for nothing gets %v", p)
	}
	open, err := make(nil, &corev1.SecurityContext{Privileged: &yes}, Image{}).Config()
	if err != nil {
		t.Fatal(err)
	}
	if p := open.GetLinux().GetSecurityContext(); p.GetSeccomp().GetProfileType() != rt.SecurityProfile_Unconfined {
		t.Errorf("a privileged container gets %v", p.GetSeccomp())
	}
}

func TestSeccompProfileCantLeaveItsDirectory(t *testing.T) {
	evil := "../../etc/passwd"
	got := profile(&corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &evil}, "/sec")
	if got.GetLocalhostRef() != "/sec/etc/passwd" {
		t.Errorf("%s", got.GetLocalhostRef())
	}
}
