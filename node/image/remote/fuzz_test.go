package remote

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// Whatever a hosts.toml says, it is read at a cost in proportion; the hosts that come
// of it have addresses.
func FuzzHosts(f *testing.F) {
	for _, text := range []string{
		"server = \"https://x\"\n[host.\"http://y:1\"]\n capabilities = ['pull', \"resolve\"]\n override_path = true\n[host.\"http://y:1\".header]\n a = [\"b\"]\n",
		"ca = [\"a\", \"b\"]\nclient = [[\"c\", \"d\"], [\"e\", \"\"]]\nskip_verify = true\n", "[host.'a'", "a.b.c = 1\na.b = 2\n", "a = [[[[[[[[1]]]]]]]]", "a = \"\\u0041\\", "[[host]]\n", "# only this", "a = '''x\n'''",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "r"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "r", "hosts.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		frugal.Run(t, len(text), func() {
			hosts, err := New(Config{HostDirs: []string{dir}, Transport: handler(answerManifest)}).hostsOf("r")
			for _, h := range hosts {
				if err != nil || h.server.Host == "" || !strings.HasPrefix(h.base(), "http") {
					t.Errorf("host %q, %v", h.base(), err)
				}
			}
		})
	})
}

// Whatever a registry asks for, and whatever an engine's file of credentials says.
func FuzzCredentials(f *testing.F) {
	for _, text := range []string{`Bearer realm="https://x/token",service="a\"b",scope=c`, "Basic", `Bearer realm=",,="`, "\"", `{"auths":{"https://x/v1/":{"auth":"YTpi"}}}`,
		`{"auths":{"x":{"auth":"!","identitytoken":"y"}},"credHelpers":{"x":"../y"},"credsStore":"z/../../bin/sh"}`, `{"auths":null}`, `[`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		frugal.Run(t, len(text), func() {
			_, _ = parseChallenge(text)
			_ = errorText([]byte(text))
			_ = MediaTypeOf([]byte(text))
			_ = registryOf(text)
			_, _, _ = CredentialFile{Path: file}.read()
		})
	})
}
