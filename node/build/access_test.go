package build

import (
	"slices"
	"strings"
	"testing"
)

// Secrets open what an ADD names, each for the host that it is of.
func TestAccess(t *testing.T) {
	b := &builder{opts: Options{
		Secrets: map[string]Secret{
			"HTTP_AUTH_TOKEN_a.example": {Value: []byte("t1\n")}, "HTTP_AUTH_HEADER_b.example": {Value: []byte("Basic x")},
			"GIT_AUTH_TOKEN.a.example": {Value: []byte("t2")}, "GIT_AUTH_HEADER": {Value: []byte("bearer y")},
		},
		Agents: map[string]string{"default": "/agent"},
	}}
	for from, want := range map[string]string{"https://a.example/x": "Bearer t1", "https://b.example/x": "Basic x", "https://c.example/x": ""} {
		if got, err := b.httpAccess(from); err != nil || got != want {
			t.Errorf("%s: %q, %v", from, got, err)
		}
	}
	for repository, want := range map[string][]string{
		"https://a.example/x.git": {"http.https://a.example/.extraheader", "Authorization: bearer y"},
		"https://b.example/x.git": {"http.https://b.example/.extraheader", "Authorization: bearer y"},
		"git@a.example:x.git":     {"SSH_AUTH_SOCK=/agent"},
	} {
		env, err := b.gitAccess(GitContext{Repository: repository})
		for _, w := range want {
			if err != nil || !slices.ContainsFunc(env, func(kv string) bool { return strings.Contains(kv, w) }) {
				t.Errorf("%s: %q, %v; want %s", repository, env, err, w)
			}
		}
	}
	delete(b.opts.Secrets, "GIT_AUTH_HEADER")
	env, err := b.gitAccess(GitContext{Repository: "https://a.example/x.git"})
	if err != nil || !slices.Contains(env, "GIT_CONFIG_VALUE_0=Authorization: basic eC1hY2Nlc3MtdG9rZW46dDI=") {
		t.Errorf("a token: %q, %v", env, err)
	}
	if env, err := b.gitAccess(GitContext{Repository: "https://c.example/x.git"}); err != nil || len(env) != 1 {
		t.Errorf("another host: %q, %v", env, err)
	}
}
