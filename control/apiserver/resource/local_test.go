package resource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

var (
	configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")
	podsOf     = corev1.SchemeGroupVersion.WithResource("pods")
	alice      = identity.Identity{Name: "alice", Groups: []string{identity.Authenticated}}
)

// request performs one HTTP request as alice.
func (f *fixture) request(method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	r = r.WithContext(identity.With(r.Context(), alice))
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func configMap(namespace, name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
}

// Both transports are one code path: what they answer is the same.
func TestLocalAnswersAsHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ctx := serve(t, nil), t.Context()
		l := f.Local(alice, "test/1")
		at := target.Of(configMaps, "a")
		mine := configMap("a", "one", map[string]string{"k": "v"})
		before := mine.DeepCopy()
		made, err := l.Create(ctx, at, mine, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(mine, before) {
			t.Errorf("the object that was handed in is changed: %v", mine)
		}
		same(t, f, "/api/v1/namespaces/a/configmaps/one", made)
		patched, err := l.Patch(ctx, at.Object("one"), types.MergePatchType, []byte(`{"data":{"x":"y"}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, f, "/api/v1/namespaces/a/configmaps/one", patched)
		got, err := l.Get(ctx, at.Object("one"), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, f, "/api/v1/namespaces/a/configmaps/one", got)
		list, err := l.List(ctx, target.Of(configMaps, ""), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, f, "/api/v1/configmaps", list)
	})
}

// same compares an object with what HTTP answers, in JSON and in protobuf.
func same(t *testing.T, f *fixture, path string, want runtime.Object) {
	t.Helper()
	for _, media := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		w := f.request("GET", path, "", "Accept", media)
		got, _, err := scheme.Codecs().UniversalDeserializer().Decode(w.Body.Bytes(), nil, nil)
		if err != nil {
			t.Fatalf("%s as %s: %v: %s", path, media, err, w.Body)
		}
		if w.Code != http.StatusOK || !equality.Semantic.DeepEqual(got, want) {
			t.Errorf("%s as %s: got %d\n%+v\nwant\n%+v", path, media, w.Code, got, want)
		}
	}
}

func TestLocalFailsAsHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, func(c *resource.Config) {
			c.Authorizer = allowed{denied: map[string]bool{"alice delete configmaps": true}}
		})
		ctx, l := t.Context(), f.Local(alice, "test/1")
		at := target.Of(configMaps, "a")
		if _, err := l.Create(ctx, at, configMap("a", "one", nil), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		late := configMap("a", "one", nil)
		late.ResourceVersion = "1"
		_, taken := l.Create(ctx, at, configMap("a", "one", nil), metav1.CreateOptions{})
		_, none := l.Get(ctx, at.Object("none"), metav1.GetOptions{})
		_, conflict := l.Update(ctx, at.Object("one"), late, metav1.UpdateOptions{})
		_, invalid := l.Create(ctx, at, configMap("a", "UP", nil), metav1.CreateOptions{})
		_, unknown := l.List(ctx, target.Of(configMaps.GroupVersion().WithResource("none"), ""), metav1.ListOptions{})
		denied := l.Delete(ctx, at.Object("one"), metav1.DeleteOptions{})
		for _, c := range []struct {
			method, path, body string
			local              error
		}{
			{"POST", "/api/v1/namespaces/a/configmaps", `{"metadata":{"name":"one"}}`, taken},
			{"GET", "/api/v1/namespaces/a/configmaps/none", "", none},
			{"PUT", "/api/v1/namespaces/a/configmaps/one", `{"metadata":{"name":"one","resourceVersion":"1"}}`, conflict},
			{"POST", "/api/v1/namespaces/a/configmaps", `{"metadata":{"name":"UP"}}`, invalid},
			{"GET", "/api/v1/none", "", unknown},
			{"DELETE", "/api/v1/namespaces/a/configmaps/one", "", denied},
		} {
			w := f.request(c.method, c.path, c.body)
			var remote metav1.Status
			if err := json.Unmarshal(w.Body.Bytes(), &remote); err != nil {
				t.Fatal(err)
			}
			var status apierrors.APIStatus
			if !errors.As(c.local, &status) {
				t.Errorf("%s %s: local error %v is no API status", c.method, c.path, c.local)
				continue
			}
			local := status.Status()
			local.TypeMeta = remote.TypeMeta
			if !equality.Semantic.DeepEqual(local, remote) {
				t.Errorf("%s %s: local %+v, HTTP %+v", c.method, c.path, local, remote)
			}
		}
	})
}

func TestLocalWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ctx := serve(t, nil), t.Context()
		l := f.Local(alice, "test/1")
		at := target.Of(configMaps, "a")
		w, err := l.Watch(ctx, at, metav1.ListOptions{
			SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range w.ResultChan() {
				seen = append(seen, fmt.Sprintf("%s %s", e.Type, e.Object.(*corev1.ConfigMap).Name))
			}
		}()
		if _, err := l.Create(ctx, at, configMap("a", "one", nil), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := l.Delete(ctx, at.Object("one"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.Stop()
		<-done
		if got := strings.Join(seen, ", "); got != "BOOKMARK , ADDED one, DELETED one" {
			t.Errorf("saw %s", got)
		}
	})
}

// Nobody's write is lost, however many write at once.
func TestConcurrentWrites(t *testing.T) {
	f, ctx := serve(t, nil), t.Context()
	l := f.Local(alice, "test/1")
	at := target.Of(configMaps, "a").Object("c")
	if _, err := l.Create(ctx, target.Of(configMaps, "a"), configMap("a", "c", map[string]string{"n": ""}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.List(ctx, target.Of(configMaps, "a"), metav1.ListOptions{}); err != nil {
		t.Fatal(err) // starts the cache: writes then begin from what it has
	}
	const writers, rounds = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range rounds {
				appendMark(ctx, t, l, at)
			}
			patch := fmt.Appendf(nil, `{"data":{"writer-%d":"done"}}`, w)
			if _, err := l.Patch(ctx, at, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := l.Get(ctx, at, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data := got.(*corev1.ConfigMap).Data
	if len(data["n"]) != writers*rounds || len(data) != writers+1 {
		t.Errorf("%d marks and %d keys, want %d and %d", len(data["n"]), len(data), writers*rounds, writers+1)
	}
}

// appendMark is read, change, update, again on conflict: as clients do it.
func appendMark(ctx context.Context, t *testing.T, l *resource.Local, at target.Target) {
	for {
		old, err := l.Get(ctx, at, metav1.GetOptions{ResourceVersion: "0"})
		if err != nil {
			t.Error(err)
			return
		}
		next := old.(*corev1.ConfigMap).DeepCopy()
		next.Data["n"] += "x"
		_, err = l.Update(ctx, at, next, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			t.Error(err)
			return
		}
	}
}
