package keyring

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Names of registries in files of credentials, and what they open.
func TestFind(t *testing.T) {
	for _, c := range []struct {
		name, image string
		fits        bool
	}{
		{"https://index.docker.io/v1/", "nginx", true}, {"https://index.docker.io/v1/", "library/nginx:1", true},
		{"index.docker.io", "docker.io/me/app", true}, {"docker.io", "me/app", true}, {"docker.io/me", "me/app", true}, {"docker.io/me", "you/app", false},
		{"https://index.docker.io/v1/", "hub.example.org/a/b", false}, {"hub.example.org", "hub.example.org/a/b", true}, {"hub.example.org/a", "hub.example.org/a/b:1", true},
		{"http://hub.example.org/v2/", "hub.example.org/a/b", true}, {"hub.example.org/b", "hub.example.org/a/c", false}, {"*.example.com", "eu.example.com/x", true},
		{"*.example.com", "a.eu.example.com/x", false}, {"app*.example.com", "app7.example.com/x", true}, {"example.*", "example.org/x", true},
		{"localhost:5000", "localhost:5000/x", true}, {"localhost:5001", "localhost:5000/x", false}, {"localhost", "localhost:5000/x", false},
		{"localhost:5000", "localhost:5000/x@sha256:" + string(slices.Repeat([]byte("a"), 64)), true},
	} {
		repository, err := Repository(c.image)
		if err != nil {
			t.Fatal(err)
		}
		ring := Ring{}
		ring.Add(Source{}, Entries{c.name: {Username: "u", Password: "p"}})
		if got := len(ring.Find(repository)) == 1; got != c.fits {
			t.Errorf("%s for %s: %v", c.name, c.image, got)
		}
	}
}

// The most specific name comes first, and of one name what was added first.
func TestOrder(t *testing.T) {
	ring := Ring{}
	ring.Add(Source{Secret: &Object{Name: "one"}}, Entries{"r.example": {Username: "host"}, "r.example/team": {Username: "team"}})
	ring.Add(Source{Secret: &Object{Name: "two"}}, Entries{"r.example/team": {Username: "team"}, "r.example/empty": {}, "%zz": {Username: "nobody"}})
	var got []string
	for _, k := range ring.Find("r.example/team/app") {
		got = append(got, k.Username+" of "+k.Secret.Name)
	}
	if want := []string{"team of one", "team of two", "host of one"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestRepository(t *testing.T) {
	for image, want := range map[string]string{
		"busybox": "docker.io/library/busybox", "busybox:1@sha256:aa": "docker.io/library/busybox", "index.docker.io/me/app": "docker.io/me/app",
		"r:5000/a/b:c": "r:5000/a/b", "localhost/x": "localhost/x", "me/app": "docker.io/me/app", "UPPER": "", "": "", "a b": "",
	} {
		if got, err := Repository(image); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", image, got, err)
		}
	}
}

// Secrets of both types, with the ways in which users and passwords are written.
func TestSecrets(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("u:p:q"))
	bare := base64.RawStdEncoding.EncodeToString([]byte("u:p:q"))
	for text, want := range map[string]Entry{
		`{"auths":{"r":{"auth":"` + auth + `"}}}`:                     {Username: "u", Password: "p:q"},
		`{"auths":{"r":{"auth":"` + bare + `"}}}`:                     {Username: "u", Password: "p:q"},
		`{"auths":{"r":{"username":"u","password":"p","email":"e"}}}`: {Username: "u", Password: "p", Email: "e"},
		`{"auths":{"r":{"identitytoken":"t"}}}`:                       {IdentityToken: "t"},
	} {
		got, err := OfSecret(&corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(text)}})
		if err != nil || got["r"] != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	old, err := OfSecret(&corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"r":{"auth":"` + auth + `"}}`)}})
	if err != nil || old["r"].Username != "u" {
		t.Errorf("dockercfg: %+v, %v", old, err)
	}
	for _, text := range []string{`{"auths":{"r":{"auth":"!"}}}`, `{"auths":{"r":{"auth":"bm9jb2xvbg=="}}}`, `{"auths":[]}`, `nothing`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if got, err := OfSecret(&corev1.Secret{Type: corev1.SecretTypeOpaque}); got != nil || err != nil {
		t.Errorf("another type: %v, %v", got, err)
	}
}

// The first good file counts, and is looked at again after five minutes.
func TestNodeFiles(t *testing.T) {
	dir := t.TempDir()
	kubelet, home := filepath.Join(dir, "kubelet"), filepath.Join(dir, "home")
	put := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(home, ".dockercfg"), `{"r.example":{"username":"old"}}`)
	synctest.Test(t, func(t *testing.T) {
		files := NodeFiles(kubelet, home)
		user := func() string {
			if found := files.Find("r.example/app"); len(found) == 1 && found[0].Source == (Source{}) {
				return found[0].Username
			}
			return ""
		}
		for _, step := range []struct{ path, text, want string }{
			{"", "", "old"},
			{filepath.Join(home, ".docker", "config.json"), `{"auths":{"r.example":{"username":"home"}}}`, "home"},
			{filepath.Join(kubelet, "config.json"), `{"auths":{"r.example":{"username":"node"}}}`, "node"},
			{filepath.Join(kubelet, "config.json"), `{"auths":`, "home"},
		} {
			before := user()
			if step.path != "" {
				put(step.path, step.text)
				if got := user(); got != before {
					t.Errorf("%s counts at once", step.path)
				}
				time.Sleep(filesFor)
			}
			if got := user(); got != step.want {
				t.Errorf("after %s: user %q, want %q", step.path, got, step.want)
			}
		}
	})
}
