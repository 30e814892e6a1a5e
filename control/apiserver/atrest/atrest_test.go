package atrest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/seal"
)

func secret(b byte, n int) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, n))
}

// wrap puts rules into a file.
func wrap(rules string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" + rules
}

func TestKeeper(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	rule := func(resources, providers string) string {
		return fmt.Sprintf("- {resources: [%s], providers: [%s]}\n", resources, providers)
	}
	key := func(name string, b byte) string { return fmt.Sprintf("{name: %s, secret: %q}", name, secret(b, 32)) }
	gcm, cbc := "{aesgcm: {keys: ["+key("a", 1)+"]}}", "{aescbc: {keys: ["+key("b", 2)+"]}}"
	box := "{secretbox: {keys: [" + key("c", 3) + "]}}"
	write(t, file, wrap(rule("events", "{identity: {}}")+rule("secrets", gcm+", {identity: {}}")+rule("'*.apps'", cbc)+rule("'*.*'", box)))
	k, err := OpenKeeper(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ resource, prefix string }{
		{"events", "plain"}, {"secrets", "k8s:enc:aesgcm:v1:a:"}, {"deployments.apps", "k8s:enc:aescbc:v1:b:"},
		{"configmaps", "k8s:enc:secretbox:v1:c:"}, {"widgets.example.com", "k8s:enc:secretbox:v1:c:"},
	} {
		by := k.For(schema.ParseGroupResource(c.resource))
		for _, plain := range []string{"plain", "plain bytes of sixteen", strings.Repeat("x", 48)} {
			sealed, err := by.Seal("/registry/x", []byte(plain))
			if err != nil || !bytes.HasPrefix(sealed, []byte(c.prefix)) && c.prefix != "plain" || c.prefix != "plain" && bytes.Contains(sealed, []byte(plain)) {
				t.Errorf("%s: sealed %q, %v", c.resource, sealed, err)
			}
			back, stale, err := by.Open("/registry/x", sealed)
			if err != nil || stale || string(back) != plain {
				t.Errorf("%s: opened %q, stale %v, %v", c.resource, back, stale, err)
			}
			if len(sealed) > 60 {
				if _, _, err := by.Open("/registry/x", sealed[:len(sealed)-5]); err == nil && c.prefix != "plain" {
					t.Errorf("%s: a part opens", c.resource)
				}
			}
		}
	}
	secrets := k.For(schema.GroupResource{Resource: "secrets"})
	old, err := secrets.Seal("/registry/x", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}

	// The file changes under a running server; a bad one is refused and told of.
	write(t, file, wrap(rule("secrets", "{aesgcm: {keys: ["+key("new", 9)+", "+key("a", 1)+"]}}, {identity: {}}")))
	if err := k.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if plain, stale, err := secrets.Open("/registry/x", old); err != nil || !stale || string(plain) != "plain" {
		t.Errorf("after a change of key: %q, stale %v, %v", plain, stale, err)
	}
	if now, err := secrets.Seal("/registry/x", []byte("plain")); err != nil || seal.KeyOf(now) != "new" {
		t.Errorf("sealed with %q, %v", seal.KeyOf(now), err)
	}
	write(t, file, wrap(rule("secrets", "{aesgcm: {keys: [{name: a, secret: x}]}}")))
	if err := k.Reload(t.Context()); err == nil || k.Check(t.Context()) == nil {
		t.Error("a bad file is taken over, or nobody is told")
	}
	if _, _, err := secrets.Open("/registry/x", old); err != nil {
		t.Errorf("after a bad file: %v", err)
	}
	if _, _, err := k.For(schema.GroupResource{Resource: "configmaps"}).Open("/x", old); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("sealed bytes that nobody can open: %v", err)
	}
}

// The words are upstream's; they are what an administrator searches for.
func TestConfigurationIsChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	for rules, want := range map[string]string{
		"- {resources: [Secrets], providers: [{identity: {}}]}":                                                  "should not contain capital letters",
		"- {resources: ['*'], providers: [{identity: {}}]}":                                                      "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
		"- {resources: ['*.', secrets], providers: [{identity: {}}]}":                                            "overlapping resources",
		"- {resources: [a, a], providers: [{identity: {}}]}":                                                     "the same resource cannot be specified multiple times",
		"- {resources: [pods.*], providers: [{identity: {}}]}":                                                   "encrypting the same resource across groups is not supported",
		"- {resources: [events.events.k8s.io], providers: [{identity: {}}]}":                                     "stored using the 'events' API group",
		"- {resources: [a], providers: []}":                                                                      "at least one resources[0].providers is required",
		"- {resources: [a], providers: [{}]}":                                                                    "provider does not contain any of the expected providers",
		"- {resources: [a], providers: [{identity: {}, aesgcm: {keys: []}}]}":                                    "more than one provider",
		"- {resources: [a], providers: [{aesgcm: {keys: []}}]}":                                                  "at least one keys is required",
		"- {resources: [a], providers: [{aesgcm: {keys: [{secret: YQ==}]}}]}":                                    "name is a mandatory field for a key",
		"- {resources: [a], providers: [{aesgcm: {keys: [{name: x}]}}]}":                                         "secret is a mandatory field for a key",
		"- {resources: [a], providers: [{secretbox: {keys: [{name: x, secret: YQ==}]}}]}":                        "secret is not of the expected length, got 1, expected one of [32]",
		"- {resources: [a], providers: [{kms: {name: x, endpoint: 'unix:///x'}}]}":                               "Use KMSv2 instead",
		"- {resources: [a], providers: [{kms: {apiVersion: v2, name: 'x:y', endpoint: 'unix:///x'}}]}":           "must not contain ':'",
		"- {resources: [a], providers: [{kms: {apiVersion: v2, name: x, endpoint: 'http:///x'}}]}":               "unsupported scheme \"http\" for KMS provider, only unix is supported",
		"- {resources: [a], providers: [{kms: {apiVersion: v2, name: x, endpoint: 'unix:///x', cachesize: 5}}]}": "cachesize is not supported in v2",
		"- {resources: [a], providers: [{kms: {apiVersion: v2, name: x, endpoint: 'unix:///x', timeout: -1s}}]}": "timeout should be a positive value",
		"- {resources: [a], providers: [{unknown: {}}]}":                                                         "unknown field",
		"- {resources: [a], providers: [{aesgcm: {keys: [{name: x, secret: '" + secret(1, 20) + "'}]}}]}":        "expected one of [16 24 32]",
	} {
		write(t, file, wrap(rules))
		_, err := OpenKeeper(t.Context(), file, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot %v\nwant %s", rules, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret(1, 20)) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	write(t, file, "kind: Other\napiVersion: v1")
	if _, err := OpenKeeper(t.Context(), file, nil); err == nil {
		t.Error("another kind is taken")
	}
}

func TestRing(t *testing.T) {
	dir := t.TempDir()
	file, old := filepath.Join(dir, "keys"), filepath.Join(dir, "key")
	reopen := func() *Ring {
		t.Helper()
		r, err := OpenRing(file, old)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	check := func(r *Ring, sealed []byte, wantStale bool) {
		t.Helper()
		plain, stale, err := r.Open("/x", sealed)
		if err != nil || stale != wantStale || string(plain) != "plain" || r.Current(sealed) == wantStale {
			t.Errorf("opened %q, stale %v, %v", plain, stale, err)
		}
	}
	r := reopen()
	first, err := r.Seal("/x", []byte("plain"))
	if err != nil || seal.KeyOf(first) != "key1" {
		t.Fatalf("sealed with %q, %v", seal.KeyOf(first), err)
	}
	check(reopen(), first, false)
	if name, err := r.Advance(); err != nil || name != "key2" {
		t.Fatalf("advance: %q, %v", name, err)
	}
	second, err := r.Seal("/x", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ring := range []*Ring{r, reopen()} { // a crash here loses nothing
		check(ring, first, true)
		check(ring, second, false)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the first key's file: %v", err)
	}
	if err := r.Retire(); err != nil {
		t.Fatal(err)
	}
	check(r, first, true) // a watch may still need it
	if got := reopen(); len(got.Keys()) != 1 || got.Keys()[0] != "key2" {
		t.Errorf("keys %q", got.Keys())
	}
	if _, _, err := reopen().Open("/x", first); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("the retired key still opens: %v", err)
	}
	check(reopen(), second, false)
	if name, err := r.Advance(); err != nil || name != "key3" {
		t.Errorf("the next key is %q, %v", name, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A key that a disk has spoilt is as good as any other, and opens nothing: it is refused
// before it seals something.
func TestRingSpoilt(t *testing.T) {
	for name, c := range map[string]struct {
		rotated bool
		spoil   func(file, old string) error
		want    string
	}{
		"flipped":             {false, func(_, old string) error { return flip(old, 24) }, "is not the key"},
		"cut":                 {false, func(_, old string) error { return os.Truncate(old, 16) }, "has 16 bytes, not 32"},
		"gone":                {false, func(_, old string) error { return os.Remove(old) }, "is gone"},
		"rotated and gone":    {true, func(file, _ string) error { return os.Remove(file) }, "is gone"},
		"rotated and flipped": {true, func(file, _ string) error { return flip(file, 50) }, "secret"},
	} {
		dir := t.TempDir()
		file, old := filepath.Join(dir, "keys"), filepath.Join(dir, "key")
		r, err := OpenRing(file, old)
		if err == nil && c.rotated {
			_, err = r.Advance()
		}
		if err == nil {
			_, err = OpenRing(file, old) // as it is, it can be opened
		}
		if err = errors.Join(err, os.Chmod(dir, 0o700)); err != nil {
			t.Fatal(name, err)
		}
		if err := c.spoil(file, old); err != nil {
			t.Fatal(name, err)
		}
		if _, err := OpenRing(file, old); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// flip changes a bit of a file.
func flip(path string, at int) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[at] ^= 1
	return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, raw, 0o600))
}
