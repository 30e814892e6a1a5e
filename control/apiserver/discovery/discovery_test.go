package discovery

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/kinds"
)

func table() []*kinds.Kind {
	k := func(group, version, kind, resource string, namespaced bool) *kinds.Kind {
		return &kinds.Kind{GVK: schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, Resource: resource,
			Singular: resource[:len(resource)-1], Namespaced: namespaced, Storage: resource}
	}
	pods := k("", "v1", "Pod", "pods", true)
	pods.Short, pods.Categories = []string{"po"}, []string{"all"}
	pods.Subresources = []kinds.Subresource{{Name: "status", Verbs: []string{"update", "get", "patch"}},
		{Name: "eviction", GVK: schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}, Verbs: []string{"create"}}}
	review := k("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", false)
	review.Storage = ""
	return []*kinds.Kind{pods, k("", "v1", "Node", "nodes", false), review,
		k("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
		k("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true)}
}

// client-go reads the same from both forms.
func TestClientUnderstands(t *testing.T) {
	rows := table()
	server := httptest.NewServer(New(func() []*kinds.Kind { return rows }, "here:6443"))
	defer server.Close()
	for _, legacy := range []bool{false, true} {
		c, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		c.UseLegacyDiscovery = legacy
		groups, lists, err := c.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		if len(groups) != 3 || groups[1].Name != "authorization.k8s.io" || groups[2].PreferredVersion.Version != "v2" {
			t.Errorf("legacy %v: groups %+v", legacy, groups)
		}
		found := map[string][]string{}
		for _, l := range lists {
			for _, r := range l.APIResources {
				found[l.GroupVersion+" "+r.Name] = r.Verbs
				if r.Name == "pods" && (r.SingularName != "pod" || r.ShortNames[0] != "po" || !r.Namespaced || r.Kind != "Pod") {
					t.Errorf("legacy %v: pods are %+v", legacy, r)
				}
				if r.Name == "pods/eviction" && (r.Group != "policy" || r.Kind != "Eviction") {
					t.Errorf("legacy %v: evictions are %+v", legacy, r)
				}
			}
		}
		want := map[string][]string{"v1 pods": allVerbs, "v1 pods/status": {"get", "patch", "update"}, "v1 pods/eviction": {"create"},
			"v1 nodes": allVerbs, "authorization.k8s.io/v1 subjectaccessreviews": {"create"},
			"autoscaling/v1 horizontalpodautoscalers": allVerbs, "autoscaling/v2 horizontalpodautoscalers": allVerbs}
		for name, verbs := range want {
			if !slices.Equal(found[name], verbs) {
				t.Errorf("legacy %v: %s has verbs %q, want %q", legacy, name, found[name], verbs)
			}
		}
		if len(found) != len(want) {
			t.Errorf("legacy %v: found %v", legacy, found)
		}
	}
}

func TestUnchangedIsNotSentAgain(t *testing.T) {
	rows := table()
	h := New(func() []*kinds.Kind { return rows }, "here:6443")
	get := func(path, accept, etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", accept)
		r.Header.Set("If-None-Match", etag)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for accept, want := range map[string]string{
		"application/json":                                                   "application/json",
		"application/json," + aggregatedType:                                 aggregatedType, // wherever it is named
		aggregatedType + ";q=0.1,application/json":                           aggregatedType,
		aggregatedType + ";sv=v1,application/json":                           "application/json",
		"application/json;g=x;v=v2," + aggregatedType:                        aggregatedType,
		strings.Replace(aggregatedType, "v2", "v3", 1) + ",application/json": "application/json",
	} {
		if got := get("/apis", accept, "").Header().Get("Content-Type"); got != want {
			t.Errorf("for %q: %q, want %q", accept, got, want)
		}
	}
	etag := get("/apis", aggregatedType, "").Header().Get("Etag")
	if code := get("/apis", aggregatedType, etag).Code; code != http.StatusNotModified {
		t.Errorf("the same again: %d", code)
	}
	rows = rows[:4]
	if w := get("/apis", aggregatedType, etag); w.Code != http.StatusOK || w.Header().Get("Etag") == etag {
		t.Errorf("after a change: %d", w.Code)
	}
	for path, want := range map[string]int{"/apis/autoscaling": 200, "/apis/autoscaling/v1": 200, "/api/v1": 200, "/apis/nothing": 404, "/apis/autoscaling/v3": 404} {
		if code := get(path, "application/json", "").Code; code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}
