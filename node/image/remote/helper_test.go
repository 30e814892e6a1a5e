package remote

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// aHelper keeps one secret for each registry in a file of its directory, and talks as
// docker-credential-helpers do.
const aHelper = `#!/bin/sh
dir=$(dirname "$0")
in=$(cat)
case $1 in
get) file=$dir/kept.$(echo "$in" | tr -d ':/'); [ -f "$file" ] && cat "$file" || { echo "credentials not found in native keychain"; exit 1; };;
store) url=$(echo "$in" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' | tr -d ':/'); echo "$in" > "$dir/kept.$url";;
erase) rm -f "$dir/kept.$(echo "$in" | tr -d ':/')";;
esac
`

// Credentials that a helper keeps are not in the file, are found by way of it, and go
// by way of it; those of other registries stay where they are.
func TestCredentialHelpers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("docker-credential-own", aHelper, 0o755)
	write("docker-credential-broken", "#!/bin/sh\ncat /dev/zero\n", 0o755)
	write("config.json", `{"credHelpers":{"r.test:5000":"own","https://index.docker.io/v1/":"own","b.test":"broken","n.test":"none-of-that-name","u.test":"../own"},"auths":{"plain.test":{"auth":"YTpi"}}}`, 0o600)
	f := CredentialFile{Path: filepath.Join(dir, "config.json")}
	for registry, want := range map[string]Credentials{
		"r.test:5000": {Username: "me", Password: `se"cret`}, "docker.io": {IdentityToken: "tok"}, "plain.test": {Username: "a", Password: "b"}, "new.test": {Username: "c", Password: "d"},
	} {
		if registry != "plain.test" {
			if got, err := f.Get(registry); err != nil || got != (Credentials{}) {
				t.Errorf("%s before: %+v, %v", registry, got, err)
			}
			if err := f.Set(registry, want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := f.Get(registry); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", registry, got, err, want)
		}
	}
	raw, err := os.ReadFile(f.Path)
	if err != nil || strings.Contains(string(raw), "cret") || strings.Contains(string(raw), "tok") || !strings.Contains(string(raw), "credHelpers") {
		t.Errorf("the file: %s, %v", raw, err)
	}
	for _, registry := range []string{"r.test:5000", "docker.io", "plain.test"} {
		if had, err := f.Delete(registry); !had || err != nil {
			t.Errorf("delete %s: %v, %v", registry, had, err)
		}
		if got, err := f.Get(registry); err != nil || got != (Credentials{}) {
			t.Errorf("%s after: %+v, %v", registry, got, err)
		}
	}
	for registry, want := range map[string]string{"b.test": "broken", "n.test": "executable file not found", "u.test": "plain name"} {
		if _, err := f.Get(registry); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", registry, err, want)
		}
	}
}
