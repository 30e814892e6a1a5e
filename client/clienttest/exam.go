package clienttest

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// patience bounds the wait for an event: generous, since only a failure uses it.
const patience = time.Minute

// Run is the exam of a transport to a server that has the namespace "default"
// and lets the caller do everything. Each part uses names of its own.
func Run(t *testing.T, transport func(t *testing.T) client.Transport) {
	for name, part := range map[string]func(*testing.T, client.Transport){
		"objects": objects, "conflicts": conflicts, "absence": absence, "patches": patches,
		"status": status, "binding": binding, "watch": watching, "initial events": initialEvents, "collections": collections,
	} {
		t.Run(name, func(t *testing.T) { part(t, transport(t)) })
	}
}

func settings(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"exam": value}},
		Data:       map[string]string{"k": value},
	}
}

func create(t *testing.T, c client.Transport, name, value string) *corev1.ConfigMap {
	t.Helper()
	made, err := client.ConfigMaps.Create(t.Context(), c, settings(name, value))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// objects: what was written is read; what was handed in is not touched.
func objects(t *testing.T, c client.Transport) {
	mine := settings("exam-objects", "1")
	made, err := client.ConfigMaps.Create(t.Context(), c, mine)
	if err != nil {
		t.Fatal(err)
	}
	if mine.UID != "" || made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() {
		t.Errorf("handed in %+v, made %+v", mine.ObjectMeta, made.ObjectMeta)
	}
	next := made.DeepCopy()
	next.Data["k"] = "2"
	if next, err = client.ConfigMaps.Update(t.Context(), c, next); err != nil || next.Data["k"] != "2" || next.ResourceVersion == made.ResourceVersion {
		t.Errorf("update: %v, %v", next, err)
	}
	got, err := client.ConfigMaps.Get(t.Context(), c, "default", "exam-objects")
	if err != nil || got.Data["k"] != "2" || got.UID != made.UID {
		t.Errorf("get: %v, %v", got, err)
	}
	wrong := types.UID("another")
	err = client.ConfigMaps.Delete(t.Context(), c, "default", got.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}})
	if !apierrors.IsConflict(err) {
		t.Errorf("delete of another uid: %v, want a conflict", err)
	}
	if err := client.ConfigMaps.Delete(t.Context(), c, "default", got.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.ConfigMaps.Get(t.Context(), c, "default", got.Name); !apierrors.IsNotFound(err) {
		t.Errorf("get after delete: %v, want not found", err)
	}
}

func conflicts(t *testing.T, c client.Transport) {
	made := create(t, c, "exam-conflicts", "1")
	next := made.DeepCopy()
	next.Data["k"] = "2"
	if _, err := client.ConfigMaps.Update(t.Context(), c, next); err != nil {
		t.Fatal(err)
	}
	late := made.DeepCopy()
	late.Data["k"] = "3"
	if _, err := client.ConfigMaps.Update(t.Context(), c, late); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version: %v, want a conflict", err)
	}
	if _, err := client.ConfigMaps.Create(t.Context(), c, settings("exam-conflicts", "1")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create twice: %v, want already exists", err)
	}
}

func absence(t *testing.T, c client.Transport) {
	if _, err := client.ConfigMaps.Update(t.Context(), c, settings("exam-absent", "1")); !apierrors.IsNotFound(err) {
		t.Errorf("update: %v, want not found", err)
	}
	if err := client.ConfigMaps.Delete(t.Context(), c, "default", "exam-absent", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("delete: %v, want not found", err)
	}
	nothing := target.Of(client.Pods.GroupVersion().WithResource("nothings"), "default")
	if _, err := c.List(t.Context(), nothing, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("list of no kind: %v, want not found", err)
	}
}

func patches(t *testing.T, c client.Transport) {
	made := create(t, c, "exam-patches", "1")
	at := target.Of(client.ConfigMaps.GroupVersionResource, "default").Object(made.Name)
	for _, p := range []struct {
		kind types.PatchType
		data string
		want string
	}{
		{types.MergePatchType, `{"data":{"k":"merge"}}`, "merge"},
		{types.StrategicMergePatchType, `{"data":{"k":"strategic"}}`, "strategic"},
		{types.JSONPatchType, `[{"op":"replace","path":"/data/k","value":"json"}]`, "json"},
	} {
		got, err := client.ConfigMaps.Patch(t.Context(), c, at, client.Patch{Type: p.kind, Data: []byte(p.data)})
		if err != nil || got.Data["k"] != p.want {
			t.Errorf("%s: %v, %v", p.kind, got, err)
		}
	}
	stale := client.Patch{Type: types.MergePatchType, Data: []byte(`{"metadata":{"resourceVersion":"` + made.ResourceVersion + `"},"data":{"k":"late"}}`)}
	if _, err := client.ConfigMaps.Patch(t.Context(), c, at, stale); !apierrors.IsConflict(err) {
		t.Errorf("patch of an old version: %v, want a conflict", err)
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

// status: each of the two ways in changes only its part.
func status(t *testing.T, c client.Transport) {
	made, err := client.Pods.Create(t.Context(), c, pod("exam-status"))
	if err != nil {
		t.Fatal(err)
	}
	next := made.DeepCopy()
	next.Status.Message, next.Spec.Containers[0].Image = "told", "other"
	got, err := client.Pods.UpdateStatus(t.Context(), c, next)
	if err != nil || got.Status.Message != "told" || got.Spec.Containers[0].Image != "i" {
		t.Errorf("update of status: %v, %v", got, err)
	}
	next = got.DeepCopy()
	next.Status.Message, next.Labels = "other", map[string]string{"is": "here"}
	got, err = client.Pods.Update(t.Context(), c, next)
	if err != nil || got.Status.Message != "told" || got.Labels["is"] != "here" {
		t.Errorf("update: %v, %v", got, err)
	}
}

func binding(t *testing.T, c client.Transport) {
	made, err := client.Pods.Create(t.Context(), c, pod("exam-binding"))
	if err != nil {
		t.Fatal(err)
	}
	at := target.Of(client.Pods.GroupVersionResource, "default").Object(made.Name).Sub("binding")
	to := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: made.Name},
		Target:     corev1.ObjectReference{Kind: "Node", Name: "n1"},
	}
	if _, err := c.Create(t.Context(), at, to, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := client.Pods.Get(t.Context(), c, "default", made.Name); err != nil || got.Spec.NodeName != "n1" {
		t.Errorf("bound pod: %v, %v", got, err)
	}
	if _, err := c.Create(t.Context(), at, to, metav1.CreateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("bind twice: %v, want a conflict", err)
	}
}

// next is the next event that is no bookmark.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatal("the watch has ended")
			}
			if e.Type != watch.Bookmark {
				return e
			}
		case <-timeout:
			t.Fatal("no event")
		}
	}
}

func expect(t *testing.T, w watch.Interface, kind watch.EventType, name, value string) {
	t.Helper()
	e := next(t, w)
	got, ok := e.Object.(*corev1.ConfigMap)
	if !ok || e.Type != kind || got.Name != name || got.Data["k"] != value {
		t.Fatalf("event %s %v, want %s %s=%s", e.Type, e.Object, kind, name, value)
	}
}

// watching: from a list's revision on, each change in order, none else.
func watching(t *testing.T, c client.Transport) {
	opts := metav1.ListOptions{LabelSelector: "exam in (watch, watch2)"}
	create(t, c, "exam-watch-before", "watch")
	all, rev, err := client.ConfigMaps.List(t.Context(), c, "default", opts)
	if err != nil || len(all) != 1 {
		t.Fatalf("list: %d, %v", len(all), err)
	}
	made := create(t, c, "exam-watch", "watch")
	create(t, c, "exam-watch-other", "else")
	opts.ResourceVersion = rev
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := client.ConfigMaps.Watch(ctx, c, "default", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	expect(t, w, watch.Added, "exam-watch", "watch")
	made = made.DeepCopy()
	made.Data["k"] = "changed"
	if made, err = client.ConfigMaps.Update(t.Context(), c, made); err != nil {
		t.Fatal(err)
	}
	expect(t, w, watch.Modified, "exam-watch", "changed")
	made = made.DeepCopy()
	made.Labels = nil // it ceases to match: for this watch it is gone
	if _, err = client.ConfigMaps.Update(t.Context(), c, made); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Type != watch.Deleted {
		t.Fatalf("event %s, want DELETED", e.Type)
	}
}

// initialEvents: the state, the bookmark that ends it, then changes.
func initialEvents(t *testing.T, c client.Transport) {
	create(t, c, "exam-initial", "initial")
	yes := true
	w, err := client.ConfigMaps.Watch(t.Context(), c, "default", metav1.ListOptions{
		LabelSelector: "exam=initial", AllowWatchBookmarks: true,
		SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	expect(t, w, watch.Added, "exam-initial", "initial")
	select {
	case e := <-w.ResultChan():
		mark, ok := e.Object.(*corev1.ConfigMap)
		if !ok || e.Type != watch.Bookmark || mark.Annotations[metav1.InitialEventsAnnotationKey] != "true" || mark.ResourceVersion == "" {
			t.Fatalf("event %s %v, want the bookmark that ends the state", e.Type, e.Object)
		}
	case <-time.After(patience):
		t.Fatal("no bookmark")
	}
	create(t, c, "exam-initial-2", "initial")
	expect(t, w, watch.Added, "exam-initial-2", "initial")
}

func collections(t *testing.T, c client.Transport) {
	for _, name := range []string{"exam-many-1", "exam-many-2", "exam-many-3"} {
		create(t, c, name, "many")
	}
	create(t, c, "exam-one", "one")
	at := target.Of(client.ConfigMaps.GroupVersionResource, "default")
	if err := c.DeleteCollection(t.Context(), at, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "exam=many"}); err != nil {
		t.Fatal(err)
	}
	all, _, err := client.ConfigMaps.List(t.Context(), c, "default", metav1.ListOptions{LabelSelector: "exam in (many, one)"})
	if err != nil || len(all) != 1 || all[0].Name != "exam-one" {
		t.Errorf("left: %v, %v; want exam-one", all, err)
	}
}
