package openapi

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kubectl/pkg/util/openapi"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
)

// served is a row for every kind that has a list.
func served() (rows []*kinds.Kind) {
	for gvk := range scheme.Scheme().AllKnownTypes() {
		list := gvk
		list.Kind += "List"
		if gvk.Version == "__internal" || gvk.Group == "meta.k8s.io" || !scheme.Scheme().Recognizes(list) {
			continue
		}
		rows = append(rows, &kinds.Kind{GVK: gvk, Resource: strings.ToLower(gvk.Kind) + "s", Namespaced: true, Storage: gvk.Kind,
			Subresources: []kinds.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}}}})
	}
	return rows
}

func client(t *testing.T) *discovery.DiscoveryClient {
	t.Helper()
	rows := served()
	server := httptest.NewServer(New(func() []*kinds.Kind { return rows }, nil))
	t.Cleanup(server.Close)
	c, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var deployment = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}

// kubectl finds its schemas in v2, by protobuf.
func TestV2(t *testing.T) {
	doc, err := client(t).OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	resources, err := openapi.NewOpenAPIData(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range served() {
		if resources.LookupResource(k.GVK) == nil {
			t.Errorf("no schema for %s", k.GVK)
		}
	}
	if media := resources.GetConsumes(deployment, "PATCH"); !slices.Contains(media, "application/strategic-merge-patch+json") {
		t.Errorf("deployments are patched with %q", media)
	}
	kind, ok := resources.LookupResource(deployment).(*proto.Kind)
	if !ok || kind.Fields["spec"] == nil || kind.GetDescription() == "" {
		t.Fatalf("deployment is %#v", kind)
	}
}

// client-go reads every group's document in v3 and finds how to validate.
func TestV3(t *testing.T) {
	root := openapi3.NewRoot(client(t).OpenAPIV3())
	gvs, err := root.GroupVersions()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[schema.GroupVersion]bool{}
	for _, k := range served() {
		gv := k.GVK.GroupVersion()
		if seen[gv] {
			continue
		}
		seen[gv] = true
		if !slices.Contains(gvs, gv) {
			t.Errorf("%s is not in the index", gv)
		}
	}
	spec, err := root.GVSpec(deployment.GroupVersion())
	if err != nil {
		t.Fatal(err)
	}
	patch := spec.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"].Patch
	if patch == nil {
		t.Fatal("deployments cannot be patched")
	}
	var names []string
	for _, p := range patch.Parameters {
		names = append(names, p.Name)
	}
	if !slices.Contains(names, "fieldValidation") || !slices.Contains(names, "dryRun") {
		t.Errorf("parameters of patch: %q", names)
	}
	for name, s := range spec.Components.Schemas {
		for field, p := range s.Properties {
			refs := slices.Clone(p.AllOf)
			refs = append(refs, p)
			for _, r := range refs {
				if to := r.Ref.String(); to != "" && spec.Components.Schemas[to[len(refV3):]] == nil {
					t.Errorf("%s.%s refers to %s, which is not there", name, field, to)
				}
			}
		}
	}
	d := spec.Components.Schemas["io.k8s.api.apps.v1.Deployment"]
	if d == nil || d.Properties["spec"].Description == "" || len(d.Properties["spec"].AllOf) != 1 {
		t.Errorf("deployment is %+v", d)
	}
}

func TestForms(t *testing.T) {
	rows := served()
	h := New(func() []*kinds.Kind { return rows }, nil)
	get := func(path, accept, encoding, etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", accept)
		r.Header.Set("Accept-Encoding", encoding)
		r.Header.Set("If-None-Match", etag)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	plain := get("/openapi/v3/api/v1", jsonType, "", "")
	packed := get("/openapi/v3/api/v1", jsonType, "gzip", "")
	if raw, err := unpack(packed.Body.Bytes()); err != nil || string(raw) != plain.Body.String() {
		t.Errorf("compressed and plain differ: %v", err)
	}
	if w := get("/openapi/v3/api/v1", jsonType, "", plain.Header().Get("Etag")); w.Code != http.StatusNotModified {
		t.Errorf("the same again: %d", w.Code)
	}
	for _, etag := range []string{"*", `"x", W/` + plain.Header().Get("Etag")} {
		if w := get("/openapi/v3/api/v1", jsonType, "gzip", etag); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("to who has %s: %d", etag, w.Code)
		}
	}
	if plain.Header().Get("Last-Modified") == "" || plain.Header().Get("Accept-Ranges") != "bytes" {
		t.Errorf("headers %v", plain.Header())
	}
	for _, path := range []string{"/openapi/v3/", "/openapi/v3/api/v1/", "/openapi/"} {
		if w := get(path, jsonType, "", ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := get("/openapi/v3/api/v1", protoV3Type, "", ""); w.Code != http.StatusOK || w.Header().Get("Content-Type") != protoV3Type {
		t.Errorf("protobuf: %d %s", w.Code, w.Body)
	}
	if w := get("/openapi/v3/apis/none/v1", jsonType, "", ""); w.Code != http.StatusNotFound {
		t.Errorf("a group that is not there: %d", w.Code)
	}
}

// Generated clients call operations by upstream's names and sort them by its tags.
func TestOperations(t *testing.T) {
	connect := []string{"create", "get"}
	rows := []*kinds.Kind{
		{GVK: deployment, Resource: "deployments", Namespaced: true, Storage: "deployments", Subresources: []kinds.Subresource{
			{Name: "scale", GVK: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, Verbs: []string{"get", "patch", "update"}}}},
		{GVK: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, Resource: "pods", Namespaced: true, Storage: "pods",
			Strategy: kinds.Strategy{ReturnsDeleted: true}, Subresources: []kinds.Subresource{
				{Name: "log", GVK: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, Verbs: []string{"get"}, New: func() runtime.Object { return &corev1.PodLogOptions{} }},
				{Name: "exec", GVK: schema.GroupVersionKind{Version: "v1", Kind: "PodExecOptions"}, Verbs: connect, New: func() runtime.Object { return &corev1.PodExecOptions{} }},
				{Name: "proxy", GVK: schema.GroupVersionKind{Version: "v1", Kind: "PodProxyOptions"}, Verbs: connect, New: func() runtime.Object { return &corev1.PodProxyOptions{} }}}},
		{GVK: schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"}, Resource: "clusterroles", Storage: "clusterroles"},
		{GVK: schema.GroupVersionKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}, Resource: "ingresses", Namespaced: true, Storage: "ingresses"},
		{GVK: schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenReview"}, Resource: "tokenreviews"},
	}
	have := map[string]string{}
	defs, err := loadDefinitions()
	if err != nil {
		t.Fatal(err)
	}
	note := func(items map[string]*pathItem) {
		for path, item := range items {
			for _, op := range item.operations {
				have[op.method+" "+path] = op.tag + " " + op.id + ": " + op.about + " " + strings.Join(append([]string{"200"}, op.codes...), ",")
			}
		}
	}
	for _, k := range rows {
		note(defs.paths(k))
	}
	for _, items := range roots(rows) {
		note(items)
	}
	const apps, core = "/apis/apps/v1/namespaces/{namespace}/deployments", "/api/v1/namespaces/{namespace}/pods"
	const old = ". deprecated: use the 'watch' parameter with a list operation instead"
	for at, want := range map[string]string{
		"get " + apps:                                                      "apps_v1 listAppsV1NamespacedDeployment: list or watch objects of kind Deployment 200",
		"post " + apps:                                                     "apps_v1 createAppsV1NamespacedDeployment: create a Deployment 200,201,202",
		"delete " + apps:                                                   "apps_v1 deleteAppsV1CollectionNamespacedDeployment: delete collection of Deployment 200",
		"get " + apps + "/{name}":                                          "apps_v1 readAppsV1NamespacedDeployment: read the specified Deployment 200",
		"put " + apps + "/{name}":                                          "apps_v1 replaceAppsV1NamespacedDeployment: replace the specified Deployment 200,201",
		"patch " + apps + "/{name}":                                        "apps_v1 patchAppsV1NamespacedDeployment: partially update the specified Deployment 200,201",
		"delete " + apps + "/{name}":                                       "apps_v1 deleteAppsV1NamespacedDeployment: delete a Deployment 200,202",
		"patch " + apps + "/{name}/scale":                                  "apps_v1 patchAppsV1NamespacedDeploymentScale: partially update scale of the specified Deployment 200,201",
		"get /apis/apps/v1/deployments":                                    "apps_v1 listAppsV1DeploymentForAllNamespaces: list or watch objects of kind Deployment 200",
		"get /apis/apps/v1/watch/deployments":                              "apps_v1 watchAppsV1DeploymentListForAllNamespaces: watch individual changes to a list of Deployment" + old + ". 200",
		"get /api/v1/watch/namespaces/{namespace}/pods":                    "core_v1 watchCoreV1NamespacedPodList: watch individual changes to a list of Pod" + old + ". 200",
		"get " + core + "/{name}/log":                                      "core_v1 readCoreV1NamespacedPodLog: read log of the specified Pod 200",
		"post " + core + "/{name}/exec":                                    "core_v1 connectCoreV1PostNamespacedPodExec: connect POST requests to exec of Pod 200",
		"head " + core + "/{name}/proxy/{path}":                            "core_v1 connectCoreV1HeadNamespacedPodProxyWithPath: connect HEAD requests to proxy of Pod 200",
		"get /apis/rbac.authorization.k8s.io/v1/clusterroles":              "rbacAuthorization_v1 listRbacAuthorizationV1ClusterRole: list or watch objects of kind ClusterRole 200",
		"post /apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses": "networking_v1 createNetworkingV1NamespacedIngress: create an Ingress 200,201,202",
		"post /apis/authentication.k8s.io/v1/tokenreviews":                 "authentication_v1 createAuthenticationV1TokenReview: create a TokenReview 200,201,202",
		"get /apis/apps/":                                                  "apps getAppsAPIGroup: get information of a group 200",
		"get /apis/apps/v1/":                                               "apps_v1 getAppsV1APIResources: get available resources 200",
		"get /api/v1/":                                                     "core_v1 getCoreV1APIResources: get available resources 200",
		"get /version/":                                                    "version getCodeVersion: get the version information for this server 200",
	} {
		if have[at] != want {
			t.Errorf("%s is %q, want %q", at, have[at], want)
		}
	}
}
