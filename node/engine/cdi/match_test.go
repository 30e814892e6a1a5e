package cdi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The examples of the Dockerfile reference.
func TestMatch(t *testing.T) {
	dir := t.TempDir()
	text := `cdiVersion: "0.6.0"
kind: "vendor1.com/device"
devices:
  - name: foo
    containerEdits: {env: [FOO=injected]}
  - name: bar
    annotations: {org.mobyproject.buildkit.device.class: class1, org.mobyproject.buildkit.device.autoallow: false}
    containerEdits: {env: [BAR=injected]}
  - name: baz
    annotations: {org.mobyproject.buildkit.device.class: class1, other: [a, b]}
    containerEdits: {env: [BAZ=injected]}
annotations:
  org.mobyproject.buildkit.device.autoallow: true
`
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := Read([]string{dir})
	for pattern, want := range map[string]string{
		"vendor1.com/device=foo": "foo", "vendor1.com/device": "bar", "vendor1.com/device=*": "bar baz foo", "class1": "bar baz",
		"vendor1.com/device=qux": "", "vendor1.com/dev": "", "vendor1.com": "", "": "", "*": "", "class2": "",
	} {
		var got []string
		for _, name := range d.Match(pattern) {
			got = append(got, strings.TrimPrefix(name, "vendor1.com/device="))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q; %v", pattern, got, want, d.problems)
		}
	}
	if !d.Free("vendor1.com/device=foo") || d.Free("vendor1.com/device=bar") || d.Free("nobody") {
		t.Error("who is free is wrong")
	}
}
