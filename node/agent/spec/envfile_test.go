package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func TestFromEnvFile(t *testing.T) {
	for _, c := range []struct{ text, want, refusal string }{
		{"", "", ""},
		{"A='b'", "b", ""},
		{"  \tA='b'  # why\n", "b", ""},
		{"# A='no'\n\n \nX='1'\nA='2'\nA='3'\n", "2", ""},
		{"A='one\n two=$X\\n'\n", "one\n two=$X\\n", ""},
		{"X='one\nA='\nA='b'", "b", ""},
		{"X='one\nA='c\nA='b'", "", "line 2: unexpected content after closing quote"},
		{"X='1=2'\r\nA='b=c'\r\n", "b=c", ""},
		{"A=''", "", ""},
		{"A= 'b'\n", "", ""},
		{"X= 'b'\nA='c'", "c", ""},
		{"A", "", "line 1: missing '='"},
		{"\n='b'", "", "line 2: empty variable name"},
		{"A ='b'", "", "line 1: whitespace before '=' is not allowed"},
		{"A=b", "", "line 1: value must be enclosed in single quotes"},
		{"A=", "", "line 1: value must be enclosed in single quotes"},
		{"X='\n\n'\nA=\"b\"", "", "line 4: value must be enclosed in single quotes"},
		{"A='b", "", "line 1: unclosed single quote"},
		{"A='b'c", "", "line 1: unexpected content after closing quote"},
		{"A='b'\nwhatever", "b", ""},
	} {
		got, err := FromEnvFile(c.text, "A")
		if got != c.want || (err != nil) != (c.refusal != "") || (err != nil && err.Error() != c.refusal) {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
}

// TestFileKey: variables out of files, which containers have written and may have made of
// anything.
func TestFileKey(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "env")
	for path, text := range map[string]string{filepath.Join(dir, "sub", "env"): "A='1'", outside: "A='2'", filepath.Join(dir, "long"): "A='" + strings.Repeat("x", maxEnvFile) + "'"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	yes := true
	for _, c := range []struct {
		ref     corev1.FileKeySelector
		want    string
		set     bool
		refusal string
	}{
		{corev1.FileKeySelector{VolumeName: "v", Path: "sub/env", Key: "A"}, "1", true, ""},
		{corev1.FileKeySelector{VolumeName: "w", Path: "env", Key: "A"}, "", false, `cannot find the volume "w" referenced by FileKeyRef`},
		{corev1.FileKeySelector{VolumeName: "v", Path: "sub/env", Key: "B"}, "", false, `environment variable key "B" not found in file "sub/env"`},
		{corev1.FileKeySelector{VolumeName: "v", Path: "sub/env", Key: "B", Optional: &yes}, "", false, ""},
		{corev1.FileKeySelector{VolumeName: "v", Path: "none", Key: "A"}, "", false, "couldn't parse env file"},
		{corev1.FileKeySelector{VolumeName: "v", Path: "none", Key: "A", Optional: &yes}, "", false, ""},
		{corev1.FileKeySelector{VolumeName: "v", Path: "out", Key: "A"}, "", false, "couldn't parse env file"},
		{corev1.FileKeySelector{VolumeName: "v", Path: "pipe", Key: "A"}, "", false, "couldn't parse env file"},
		{corev1.FileKeySelector{VolumeName: "v", Path: "sub", Key: "A"}, "", false, "couldn't parse env file"},
		{corev1.FileKeySelector{VolumeName: "v", Path: "long", Key: "A"}, "", false, "couldn't parse env file"},
	} {
		e := &Environment{Pod: &corev1.Pod{}, Paths: map[string]string{"v": dir}, Container: &corev1.Container{
			Env: []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &c.ref}}}}}
		done := make(chan error, 1)
		var vars []Var
		go func() {
			var err error
			vars, err = e.Resolve(t.Context())
			done <- err
		}()
		select {
		case err := <-done:
			if (err != nil) != (c.refusal != "") || (err != nil && err.Error() != c.refusal) {
				t.Errorf("%+v: %v", c.ref, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%+v is waited for", c.ref)
		}
		if set := len(vars) == 1; set != c.set || (set && vars[0] != Var{"X", c.want}) {
			t.Errorf("%+v: %v", c.ref, vars)
		}
	}
}
