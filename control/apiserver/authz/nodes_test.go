package authz

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

// objects is what exists, by "resource namespace/name"; its lists are of pods on
// one node, and of volumes.
type objects map[string]runtime.Object

func (o objects) Get(_ context.Context, t target.Target, _ metav1.GetOptions) (runtime.Object, error) {
	if obj, ok := o[t.String()]; ok {
		return obj, nil
	}
	return nil, apierrors.NewNotFound(t.Resource.GroupResource(), t.Name)
}

func (o objects) List(_ context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if t.Resource.Resource == "persistentvolumes" {
		all := &corev1.PersistentVolumeList{}
		for _, obj := range o {
			if v, ok := obj.(*corev1.PersistentVolume); ok {
				all.Items = append(all.Items, *v)
			}
		}
		return all, nil
	}
	list := &corev1.PodList{}
	for _, obj := range o {
		pod, ok := obj.(*corev1.Pod)
		if ok && pod.Namespace == t.Namespace && opts.FieldSelector == "spec.nodeName="+pod.Spec.NodeName {
			list.Items = append(list.Items, *pod)
		}
	}
	return list, nil
}

// podOnNode refers to an object of each kind in each way.
func podOnNode() *corev1.Pod {
	name := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: n} }
	claim := "res"
	volume := func(n string, s corev1.VolumeSource) corev1.Volume { return corev1.Volume{Name: n, VolumeSource: s} }
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "web"}, Spec: corev1.PodSpec{
		NodeName: "n1", ServiceAccountName: "robot", ImagePullSecrets: []corev1.LocalObjectReference{name("pull")},
		ResourceClaims: []corev1.PodResourceClaim{{Name: "r", ResourceClaimName: &claim}},
		Volumes: []corev1.Volume{
			volume("a", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "vol"}}),
			volume("b", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name("vol")}}),
			volume("c", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}),
			volume("d", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}),
			volume("e", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{Secret: &corev1.SecretProjection{LocalObjectReference: name("proj")}}, {ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("proj")}}}}}),
		},
		InitContainers: []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("env")}}}}}},
		Containers:     []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("env")}}}}},
	}, Status: corev1.PodStatus{ExtendedResourceClaimStatus: &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "extended"}}}
}

// cached shows what exists as a watch cache does, if it runs; while it does, nobody
// asks for a list of pods.
type cached struct {
	objects
	t    *testing.T
	runs bool
}

func (c cached) PeekEach(at target.Target, see func(runtime.Object) (more bool)) (ok bool) {
	if !c.runs {
		return false
	}
	for name, obj := range c.objects {
		o, is := obj.(metav1.Object)
		if is && strings.HasPrefix(name, at.Resource.Resource+" ") && o.GetNamespace() == at.Namespace && !see(obj) {
			break
		}
	}
	return true
}

func (c cached) List(ctx context.Context, at target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if c.runs {
		c.t.Errorf("%s are listed though there is a cache", at)
	}
	return c.objects.List(ctx, at, opts)
}

// A node reads what its pods refer to, whether they are listed or seen in a cache.
func TestNodes(t *testing.T) {
	for name, reader := range map[string]func(*testing.T, objects) Reader{
		"listed":         func(_ *testing.T, o objects) Reader { return o },
		"cached":         func(t *testing.T, o objects) Reader { return cached{o, t, true} },
		"not cached yet": func(t *testing.T, o objects) Reader { return cached{o, t, false} },
	} {
		t.Run(name, func(t *testing.T) { testNodes(t, reader) })
	}
}

func testNodes(t *testing.T, reader func(*testing.T, objects) Reader) {
	mirror := podOnNode()
	mirror.Namespace, mirror.Name = "m", "mirror"
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	elsewhere := podOnNode()
	elsewhere.Name, elsewhere.Spec.NodeName = "elsewhere", "n2"
	volume := func(claim, secret string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "x", Name: claim},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				NodeStageSecretRef:         &corev1.SecretReference{Namespace: "vault", Name: secret},
				ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "vault", Name: "controller"},
			}}}}
	}
	attached := func(node string) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{NodeName: node}}
	}
	world := objects{"pods x/web": podOnNode(), "pods m/mirror": mirror, "pods x/elsewhere": elsewhere,
		"persistentvolumes mine": volume("data", "stage"), "persistentvolumes other": volume("theirs", "elses"),
		"volumeattachments.storage.k8s.io mine": attached("n1"), "volumeattachments.storage.k8s.io other": attached("n2")}
	d, err := Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	a := New(policy(t, ""), NewNodes(reader(t, world), d))
	for question, want := range map[string]bool{
		"get secrets x/vol": true, "get secrets x/proj": true, "get secrets x/env": true, "get secrets x/pull": true, "watch secrets x/vol": true,
		"get secrets x/other": false, "get secrets y/vol": false, "get secrets m/vol": false, "list secrets x/": false, "delete secrets x/vol": false,
		"get configmaps x/vol": true, "get configmaps x/proj": true, "get configmaps x/env": true, "get configmaps x/other": false,
		"create serviceaccounts/token x/robot": true, "create serviceaccounts/token x/admin": false, "get serviceaccounts x/robot": true,
		"get persistentvolumeclaims x/data": true, "get persistentvolumeclaims x/web-d": true, "get persistentvolumeclaims x/theirs": false,
		"patch persistentvolumeclaims/status x/data": true, "patch persistentvolumeclaims x/data": false,
		"get secrets vault/stage": true, "get secrets vault/elses": false, "get secrets vault/controller": false, "get secrets x/stage": false,
		"get persistentvolumes /mine": true, "get persistentvolumes /other": false, "list persistentvolumes /": false,
		"get pods x/web": true, "get pods x/elsewhere": false, "update pods/status x/web": true, "create pods/binding x/web": false,
		"update nodes/status /n1": true, "get services x/s": true, "get secrets/status x/vol": false,
	} {
		q := ask("system:node:n1,system:nodes " + question)
		if got, reason := a.Authorize(t.Context(), q); got != want {
			t.Errorf("%s: %v (%s), want %v", question, got, reason, want)
		}
	}
	for _, c := range []struct {
		q    Attributes
		want bool
	}{
		{Attributes{Verb: "get", Group: "resource.k8s.io", Resource: "resourceclaims", Namespace: "x", Name: "res"}, true},
		{Attributes{Verb: "get", Group: "resource.k8s.io", Resource: "resourceclaims", Namespace: "x", Name: "extended"}, true},
		{Attributes{Verb: "get", Group: "resource.k8s.io", Resource: "resourceclaims", Namespace: "x", Name: "other"}, false},
		{Attributes{Verb: "get", Group: "storage.k8s.io", Resource: "volumeattachments", Name: "mine"}, true},
		{Attributes{Verb: "get", Group: "storage.k8s.io", Resource: "volumeattachments", Name: "other"}, false},
		{Attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: corev1.NamespaceNodeLease, Name: "n1"}, true},
		{Attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: corev1.NamespaceNodeLease, Name: "n2"}, false},
		{Attributes{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-system", Name: "n1"}, false},
		{Attributes{Verb: "list", Resource: "pods", FieldSelector: "spec.nodeName=n1,status.phase!=Failed"}, true},
		{Attributes{Verb: "watch", Resource: "pods", FieldSelector: "spec.nodeName=n2"}, false},
		{Attributes{Verb: "list", Resource: "pods"}, false},
		{Attributes{Verb: "watch", Resource: "pods", Namespace: "x", Name: "web", FieldSelector: "metadata.name=web"}, true},
		{Attributes{Verb: "watch", Resource: "pods", Namespace: "x", Name: "elsewhere", FieldSelector: "metadata.name=elsewhere"}, false},
		{Attributes{Verb: "deletecollection", Resource: "pods", FieldSelector: "spec.nodeName=n1"}, false},
		{Attributes{Verb: "patch", Group: "storage.k8s.io", Resource: "csinodes", Subresource: "status", Name: "n1"}, false},
		{Attributes{Verb: "create", Group: "storage.k8s.io", Resource: "csinodes"}, true},
		{Attributes{Verb: "patch", Group: "storage.k8s.io", Resource: "csinodes", Name: "n2"}, false},
	} {
		c.q.User = who("system:node:n1,system:nodes")
		if got, reason := a.Authorize(t.Context(), c.q); got != c.want {
			t.Errorf("%+v: %v (%s)", c.q, got, reason)
		}
	}
	impostor := ask("system:node:n1 get secrets x/vol") // the name without the group
	if got, _ := a.Authorize(t.Context(), impostor); got {
		t.Error("a node's name alone opens secrets")
	}
	_, reason := a.Authorize(t.Context(), ask("system:node:n1,system:nodes get secrets x/other"))
	if !strings.Contains(reason, "no relationship found between node 'n1' and this object") {
		t.Errorf("reason: %s", reason)
	}
}

// A kubelet that is not ours may what upstream's node authorizer allows, and no more; a
// node of ours, whose certificate says so, also what its proxy, DNS and routes need.
func TestNodesOfOurs(t *testing.T) {
	d, err := Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	a := New(&held{Defaults: d}, NewNodes(objects{}, d))
	const nobody, agent, both = "neither", "the agent alone", "both"
	for question, want := range map[string]string{
		"list nodes /": agent, "watch nodes /": agent, "get nodes /n1": both, "get nodes /n2": nobody, "delete nodes /n1": nobody, "patch nodes /n1": both,
		"list namespaces /": agent, "watch namespaces /": agent, "get namespaces x/x": nobody,
		"list discovery.k8s.io.endpointslices /": agent, "watch discovery.k8s.io.endpointslices /": agent, "get discovery.k8s.io.endpointslices x/s": nobody,
		"list services /": both, "list endpoints /": nobody, "get endpoints x/e": both, "list pods /": nobody, "list secrets /": nobody,
		"list networking.k8s.io.servicecidrs /": nobody, "get configmaps kube-system/sampan-cluster": agent, "get configmaps kube-system/other": nobody,
		"list configmaps kube-system/": nobody, "get url /sampan/v1/image": agent, "get url /v2/app/manifests/v1": agent, "put url /v2/app/manifests/v1": nobody,
		"create certificates.k8s.io.certificatesigningrequests /": both, "create certificates.k8s.io.certificatesigningrequests/selfnodeclient /": both,
		"create certificates.k8s.io.certificatesigningrequests/agentclient /": agent, "create certificates.k8s.io.certificatesigningrequests/nodeclient /": nobody,
		"update certificates.k8s.io.certificatesigningrequests/approval /c": nobody, "create rbac.authorization.k8s.io.clusterrolebindings /": nobody,
	} {
		q := ask("system:node:n1,system:nodes,system:authenticated " + question)
		if group, resource, ok := strings.Cut(question, "k8s.io."); ok { // a group has dots itself
			q.Group = strings.Fields(group + "k8s.io")[1]
			q.Resource, q.Subresource, _ = strings.Cut(strings.Fields(resource)[0], "/")
		}
		got := nobody
		kubelet, _ := a.Authorize(t.Context(), q)
		q.User.Groups = append(q.User.Groups, "sampan:agents")
		ours, _ := a.Authorize(t.Context(), q)
		switch {
		case kubelet && ours:
			got = both
		case ours:
			got = agent
		case kubelet:
			got = "the kubelet alone"
		}
		if got != want {
			t.Errorf("%s: %s may, want %s", question, got, want)
		}
	}
}
