package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/seal"
)

// The key changes under a running server: all Secrets are sealed anew, stay
// readable all the time, and the old key is forgotten.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	keys, old := filepath.Join(dir, "keys"), filepath.Join(dir, "key")
	ring, err := atrest.OpenRing(keys, old)
	must(t, err)
	w := startWith(t, func(c *Config) { c.Ring = ring })
	admin := w.as("admin", "system:masters")
	const many = 30
	for i := range many {
		s := &corev1.Secret{TypeMeta: typed("v1", "Secret"), ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i)}, StringData: map[string]string{"a": "hidden"}}
		if code, text := w.do(admin, "POST", "/api/v1/namespaces/default/secrets", s, nil); code != 201 {
			t.Fatal(code, text)
		}
	}
	sealedWith := func() map[string]int {
		list, err := w.cfg.Store.List(t.Context(), "/registry/secrets/", store.ListOptions{})
		must(t, err)
		by := map[string]int{}
		for _, e := range list.Entries {
			if bytes.Contains(e.Value, []byte("hidden")) {
				t.Errorf("%s lies open", e.Key)
			}
			by[seal.KeyOf(e.Value)]++
		}
		return by
	}
	if by := sealedWith(); by["key1"] < many {
		t.Errorf("sealed with %v", by)
	}
	if code, _ := w.do(w.as("alice"), "POST", atrest.RotationPath, nil, nil); code != 403 {
		t.Errorf("alice may rotate: %d", code)
	}
	_, text := w.do(admin, "POST", atrest.RotationPath, nil, nil)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last atrest.Progress
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	if last.State != "done" || last.Done != last.Total || last.Total < many || len(last.Keys) != 1 || last.Keys[0] != "key2" {
		t.Errorf("progress: %s", text)
	}
	if by := sealedWith(); by["key2"] != last.Total || len(by) != 1 {
		t.Errorf("sealed with %v", by)
	}
	var list corev1.SecretList
	w.do(admin, "GET", "/api/v1/namespaces/default/secrets", nil, &list)
	if len(list.Items) != many || string(list.Items[7].Data["a"]) != "hidden" {
		t.Errorf("%d secrets", len(list.Items))
	}
	again, err := atrest.OpenRing(keys, old)
	must(t, err)
	if names := again.Keys(); len(names) != 1 || names[0] != "key2" {
		t.Errorf("keys on disk: %v", names)
	}
}

// A rotation that a crash has interrupted is finished by the next server.
func TestRotationGoesOn(t *testing.T) {
	dir := t.TempDir()
	keys, old := filepath.Join(dir, "keys"), filepath.Join(dir, "key")
	ring, err := atrest.OpenRing(keys, old)
	must(t, err)
	w := startWith(t, func(c *Config) {
		// What a server before has left: a Secret with the first key, and a new key in use.
		s := &corev1.Secret{TypeMeta: typed("v1", "Secret"), ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s", UID: "u"}, Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"a": []byte("b")}}
		raw, err := json.Marshal(s)
		must(t, err)
		sealed, err := ring.Seal("/registry/secrets/default/s", raw)
		must(t, err)
		_, err = c.Store.Create(t.Context(), "/registry/secrets/default/s", sealed, 0)
		must(t, err)
		_, err = ring.Advance()
		must(t, err)
		c.Ring = ring
	})
	eventually(t, "the rotation goes on", func() bool {
		e, _, err := w.cfg.Store.Get(t.Context(), "/registry/secrets/default/s")
		must(t, err)
		return seal.KeyOf(e.Value) == "key2" && len(ring.Keys()) == 1
	})
	var s corev1.Secret
	w.do(w.as("admin", "system:masters"), "GET", "/api/v1/namespaces/default/secrets/s", nil, &s)
	if string(s.Data["a"]) != "b" {
		t.Errorf("secret %v", s.Data)
	}
}
