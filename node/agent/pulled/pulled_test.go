package pulled

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

const app = "r.example/team/app:1"

func open(t *testing.T, dir string, policy kubeletv1beta1.ImagePullCredentialsVerificationPolicy, allow ...string) *Records {
	t.Helper()
	r, err := New(Config{Dir: dir, Policy: policy, Allow: allow, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ofSecret(namespace, name, password string) *keyring.Key {
	return &keyring.Key{Entry: keyring.Entry{Username: "u", Password: password},
		Source: keyring.Source{Secret: &keyring.Object{Namespace: namespace, Name: name, UID: namespace + "-" + name}}}
}

func ofAccount(namespace, name string) *keyring.Key {
	return &keyring.Key{Entry: keyring.Entry{Username: "u", Password: "whatever it was"},
		Source: keyring.Source{ServiceAccount: &keyring.Object{Namespace: namespace, Name: name, UID: namespace + "-" + name}}}
}

func pull(t *testing.T, r *Records, image, id string, by *keyring.Key) {
	t.Helper()
	if err := r.Begin(image); err != nil {
		t.Fatal(err)
	}
	r.End(image, id, by)
}

func held(t *testing.T, r *Records, image, id string, keys ...*keyring.Key) bool {
	t.Helper()
	yes, err := r.Held(image, id, func() ([]keyring.Key, error) {
		var list []keyring.Key
		for _, k := range keys {
			list = append(list, *k)
		}
		return list, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// Who may use an image that others have pulled, now and after a restart.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, kubeletv1beta1.NeverVerifyPreloadedImages)
	pull(t, r, app, "sha256:1", ofSecret("a", "pull", "right"))
	pull(t, r, "r.example/team/other", "sha256:2", ofAccount("a", "builder"))
	pull(t, r, "busybox", "sha256:3", nil)
	node := &keyring.Key{Entry: keyring.Entry{Username: "node"}}
	pull(t, r, "r.example/node/app", "sha256:4", node)
	for range 2 {
		for _, c := range []struct {
			image, id string
			keys      []*keyring.Key
			held      bool
		}{
			{app, "sha256:1", nil, true},
			{app, "sha256:1", []*keyring.Key{ofSecret("a", "pull", "right")}, false},
			{"r.example/team/app:2", "sha256:1", []*keyring.Key{ofSecret("a", "pull", "right")}, false}, // another tag of the same
			{"r.example/else/app", "sha256:1", []*keyring.Key{ofSecret("a", "pull", "right")}, true},    // the same by another name
			{app, "sha256:1", []*keyring.Key{ofSecret("b", "bad", "wrong")}, true},
			{app, "sha256:1", []*keyring.Key{ofSecret("b", "copy", "right")}, false},
			{app, "sha256:1", []*keyring.Key{node}, true},
			{app, "sha256:1", []*keyring.Key{ofAccount("a", "builder")}, true},
			{"r.example/team/other", "sha256:2", []*keyring.Key{ofAccount("a", "builder")}, false},
			{"r.example/team/other", "sha256:2", []*keyring.Key{ofAccount("b", "builder")}, true},
			{"busybox", "sha256:3", nil, false}, {"r.example/node/app", "sha256:4", nil, false},
			{"brought.example/x", "sha256:9", nil, false},
		} {
			if got := held(t, r, c.image, c.id, c.keys...); got != c.held {
				t.Errorf("%s with %v: held %v", c.image, c.keys, got)
			}
		}
		r = open(t, dir, kubeletv1beta1.NeverVerifyPreloadedImages)
	}
	// The Secret has another password by now: it stays the same Secret, and the new
	// password is good for others too.
	if held(t, r, app, "sha256:1", ofSecret("a", "pull", "new")) || held(t, r, app, "sha256:1", ofSecret("c", "copy", "new")) {
		t.Error("a changed secret is not known")
	}
	if pulls, images := r.Sizes(); pulls != 0 || images != 4 {
		t.Errorf("%d pulls and %d images on record", pulls, images)
	}
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy                  kubeletv1beta1.ImagePullCredentialsVerificationPolicy
		pulled, brought, listed bool
	}{
		{kubeletv1beta1.NeverVerify, false, false, false},
		{kubeletv1beta1.NeverVerifyPreloadedImages, true, false, true},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, true, true, false},
		{kubeletv1beta1.AlwaysVerify, true, true, true},
	} {
		r := open(t, t.TempDir(), c.policy, "ok.example/*", "fine.example/app")
		for image, id := range map[string]string{app: "sha256:1", "ok.example/x": "sha256:2", "fine.example/app:3": "sha256:3"} {
			pull(t, r, image, id, ofSecret("a", "pull", "right"))
		}
		if got := held(t, r, app, "sha256:1"); got != c.pulled {
			t.Errorf("%s: pulled is held: %v", c.policy, got)
		}
		if got := held(t, r, "brought.example/x", "sha256:9"); got != c.brought {
			t.Errorf("%s: brought is held: %v", c.policy, got)
		}
		for image, id := range map[string]string{"ok.example/x": "sha256:2", "fine.example/app:3": "sha256:3"} {
			if got := held(t, r, image, id); got != c.listed {
				t.Errorf("%s: %s is held: %v", c.policy, image, got)
			}
		}
	}
	for _, bad := range []string{"", " x", "*", "/*", "a*/x", "x:1", "x@sha256:aa", "UP per"} {
		if CheckAllow([]string{bad}) == nil {
			t.Errorf("pattern %q is taken", bad)
		}
	}
}

// The power goes in the middle of pulls.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, kubeletv1beta1.NeverVerifyPreloadedImages)
	for _, image := range []string{app, "busybox", "never.example/came"} {
		if err := r.Begin(image); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, dir, kubeletv1beta1.NeverVerifyPreloadedImages)
	if !held(t, r, app, "sha256:1", ofSecret("a", "pull", "right")) {
		t.Error("what was being pulled may be used by anybody")
	}
	r.Resume(func() ([]*rt.Image, error) {
		return []*rt.Image{{Id: "sha256:1", RepoTags: []string{app}}, {Id: "sha256:3", RepoTags: []string{"docker.io/library/busybox:latest"}}}, nil
	})
	for image, id := range map[string]string{app: "sha256:1", "busybox": "sha256:3"} {
		if !held(t, r, image, id, ofSecret("a", "pull", "right")) {
			t.Errorf("%s is nobody's, and may be used", image)
		}
	}
	if pulls, images := r.Sizes(); pulls != 1 || images != 2 {
		t.Errorf("%d pulls and %d images on record", pulls, images)
	}
	pull(t, r, app, "sha256:1", ofSecret("a", "pull", "right"))
	if held(t, r, app, "sha256:1", ofSecret("a", "pull", "right")) {
		t.Error("who pulled it may not use it")
	}

	// A file that can't be read any more opens nothing.
	files, err := filepath.Glob(filepath.Join(dir, "image_manager", "pulled", "sha256-*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(raw), `"kind":"ImagePulledRecord","apiVersion":"kubelet.config.k8s.io/v1beta1"`) {
			t.Fatalf("%s, %v", raw, err)
		}
		if err := os.WriteFile(file, raw[:len(raw)/2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, dir, kubeletv1beta1.NeverVerifyPreloadedImages)
	if !held(t, r, app, "sha256:1", ofSecret("a", "pull", "right")) {
		t.Error("a broken record opens the image")
	}
	pull(t, r, app, "sha256:1", ofSecret("a", "pull", "right"))
	if held(t, r, app, "sha256:1", ofSecret("a", "pull", "right")) {
		t.Error("a broken record is not made good")
	}
}

// Pulls that fail leave nothing, and images that go take their records with them.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, "")
	for range 2 {
		if err := r.Begin(app); err != nil {
			t.Fatal(err)
		}
	}
	r.End(app, "", nil)
	if pulls, _ := r.Sizes(); pulls != 1 {
		t.Errorf("%d pulls on record while one goes on", pulls)
	}
	r.End(app, "", nil)
	pull(t, r, app, "sha256:1", nil)
	r.Prune(map[string]bool{"sha256:1": true}, time.Now().Add(time.Hour))
	if _, images := r.Sizes(); images != 1 {
		t.Error("the record of an image that is there is gone")
	}
	r.Prune(nil, time.Now().Add(-time.Hour))
	if _, images := r.Sizes(); images != 1 {
		t.Error("the record of an image that has only just come is gone")
	}
	r.Prune(nil, time.Now().Add(time.Hour))
	for _, name := range []string{"pulling", "pulled"} {
		if files, err := os.ReadDir(filepath.Join(dir, "image_manager", name)); err != nil || len(files) > 0 {
			t.Errorf("%s has %v, %v", name, files, err)
		}
	}
}
