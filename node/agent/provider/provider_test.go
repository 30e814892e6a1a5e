package provider

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bench is a configuration with programs, which are shell scripts: each writes what it
// was asked into asked and prints what answer has.
type bench struct {
	t      *testing.T
	dir    string
	ran    int
	failed []string
	tokens int
	set    *Set
}

const header = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"

func setUp(t *testing.T, config string, programs map[string]string) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	for name, script := range programs {
		text := "#!/bin/sh\ncat >> " + b.dir + "/asked\necho >> " + b.dir + "/asked\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(b.dir, "config.yaml"), []byte(header+config), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := Load(Config{
		Path: filepath.Join(b.dir, "config.yaml"), Bin: b.dir, Log: slog.New(slog.DiscardHandler),
		Account: func(_ context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
			if name == "gone" {
				return nil, errors.New("not found")
			}
			a := &corev1.ServiceAccount{}
			a.Namespace, a.Name, a.UID, a.Annotations = namespace, name, "uid-1", map[string]string{"example.com/role": "reader"}
			return a, nil
		},
		Token: func(_ context.Context, pod *corev1.Pod, a *corev1.ServiceAccount, audience string) (Token, error) {
			b.tokens++
			return Token{Value: fmt.Sprintf("%s/%s for %s %d", a.Name, pod.Name, audience, b.tokens), Issued: time.Now(), Until: time.Now().Add(time.Hour)}, nil
		},
		Ran: func(_ string, _ time.Duration, err error) {
			b.ran++
			if err != nil {
				b.failed = append(b.failed, err.Error())
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.set = set
	return b
}

func somebody(name, account string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID, p.Spec.ServiceAccountName = "default", name, types.UID("uid-"+name), account
	return p
}

func (b *bench) find(pod *corev1.Pod, repository string) string {
	b.t.Helper()
	var out []string
	for _, k := range b.set.Find(b.t.Context(), pod, repository) {
		text := k.Username + ":" + k.Password
		if k.ServiceAccount != nil {
			text += " of " + k.ServiceAccount.Namespace + "/" + k.ServiceAccount.Name
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (b *bench) asked() string {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "asked"))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(raw)
}

func answering(cache, key string) string {
	return `echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse",` + cache + `"cacheKeyType":"` + key +
		`","auth":{"*.example.com":{"username":"'$WHO'","password":"p"}}}'`
}

const plain = "- {name: a, apiVersion: credentialprovider.kubelet.k8s.io/v1, defaultCacheDuration: 1h, matchImages: ['*.example.com'], args: [x], env: [{name: WHO, value: me}]}\n"

// A program is asked for the images that it is for, and its answer is kept for what it
// says that it is good for.
func TestKeptAnswers(t *testing.T) {
	for _, c := range []struct {
		cache, key string
		// same image, same registry, another registry
		runs [3]int
	}{
		{"", "Image", [3]int{1, 2, 3}}, {"", "Registry", [3]int{1, 1, 2}}, {"", "Global", [3]int{1, 1, 1}},
		{`"cacheDuration":"0s",`, "Global", [3]int{2, 3, 4}}, {`"cacheDuration":"5m",`, "Registry", [3]int{1, 1, 2}},
	} {
		b := setUp(t, plain, map[string]string{"a": answering(c.cache, c.key)})
		if got := b.find(somebody("p", "default"), "other.example.org/x"); got != "" || b.ran != 0 {
			t.Errorf("another's image: %q after %d runs", got, b.ran)
		}
		b.find(somebody("p", "default"), "r.example.com/x")
		for i, image := range []string{"r.example.com/x", "r.example.com/y", "s.example.com/x"} {
			if got := b.find(somebody("p", "default"), image); got != "me:p" || b.ran != c.runs[i] {
				t.Errorf("%s %s: %s has %q after %d runs, want %d", c.key, c.cache, image, got, b.ran, c.runs[i])
			}
		}
		want := `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"r.example.com/x"}`
		if !strings.HasPrefix(b.asked(), want) {
			t.Errorf("asked %s, want %s", b.asked(), want)
		}
	}
}

// A program that fails has no credentials, and takes nobody else's away.
func TestFailures(t *testing.T) {
	second := "- {name: z, apiVersion: credentialprovider.kubelet.k8s.io/v1, defaultCacheDuration: 0s, matchImages: [r.example.com], env: [{name: WHO, value: other}]}\n"
	for name, c := range map[string]struct{ script, failure string }{
		"an exit code":    {"echo no such account >&2; exit 3", "exit status 3: no such account"},
		"no answer":       {"true", ""},
		"garbage":         {"head -c 100 /dev/urandom", ""},
		"another version": {`echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","kind":"CredentialProviderResponse","cacheKeyType":"Image"}'`, ""},
		"another kind":    {`echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"Pod","cacheKeyType":"Image"}'`, ""},
		"no key type":     {answering("", "Sometimes"), ""},
		"without end":     {"head -c 3000000 /dev/zero", "printed more than"},
		"a child is left": {"sleep 600 & exit 1", "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setUp(t, plain+second, map[string]string{"a": c.script, "z": answering("", "Image")})
			if got := b.find(somebody("p", "default"), "r.example.com/x"); got != "other:p" {
				t.Errorf("found %q", got)
			}
			if all := strings.Join(b.failed, "\n"); !strings.Contains(all, c.failure) || (c.failure == "") != (all == "") {
				t.Errorf("told of %q, want %q", all, c.failure)
			}
		})
	}
}

// Programs that want them get tokens of service accounts, and their answers are kept
// apart by account, or by token.
func TestServiceAccounts(t *testing.T) {
	with := func(attributes string) string {
		return "- {name: a, apiVersion: credentialprovider.kubelet.k8s.io/v1, defaultCacheDuration: 1h, matchImages: ['*.example.com'], env: [{name: WHO, value: me}], " +
			"tokenAttributes: {serviceAccountTokenAudience: registry, " + attributes + "}}\n"
	}
	b := setUp(t, with("cacheType: ServiceAccount, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [example.com/role], optionalServiceAccountAnnotationKeys: [example.com/none]"),
		map[string]string{"a": answering("", "Global")})
	if got := b.find(somebody("p", ""), "r.example.com/x"); got != "" || b.ran != 0 {
		t.Errorf("without an account: %q", got)
	}
	if got := b.find(somebody("p", "gone"), "r.example.com/x"); got != "" || b.ran != 0 {
		t.Errorf("an account that is gone: %q", got)
	}
	for i, account := range []string{"one", "one", "two"} {
		if got := b.find(somebody(fmt.Sprint("p", i), account), "r.example.com/x"); got != "me:p of default/"+account {
			t.Errorf("%s: %q", account, got)
		}
	}
	if b.ran != 2 {
		t.Errorf("asked %d times for two accounts", b.ran)
	}
	if want := `"serviceAccountToken":"one/p0 for registry 1","serviceAccountAnnotations":{"example.com/role":"reader"}}`; !strings.Contains(b.asked(), want) {
		t.Errorf("asked %s, want %s", b.asked(), want)
	}

	b = setUp(t, with("cacheType: Token, requireServiceAccount: false"), map[string]string{"a": answering("", "Global")})
	if got := b.find(somebody("static", ""), "r.example.com/x"); got != "me:p" || b.tokens != 0 {
		t.Errorf("a pod without account: %q", got)
	}
	one, other := somebody("p1", "one"), somebody("p2", "one")
	for _, p := range []*corev1.Pod{one, one, other} {
		b.find(p, "r.example.com/x")
	}
	if b.ran != 3 || b.tokens != 2 {
		t.Errorf("asked %d times with %d tokens, want 3 with 2", b.ran, b.tokens)
	}

	b = setUp(t, with("cacheType: ServiceAccount, requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [example.com/absent]"), map[string]string{"a": answering("", "Image")})
	if got := b.find(somebody("p", "one"), "r.example.com/x"); got != "" || b.ran != 0 {
		t.Errorf("without a required annotation: %q after %d runs", got, b.ran)
	}

	echo := `token=$(sed -n 's/.*"serviceAccountToken":"\([^"]*\)".*/\1/p' ` + "%s/asked)" + "\n" +
		`echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":"Image","auth":{"*.example.com":{"username":"me","password":"'"$token"'"}}}'`
	for kind, want := range map[string]string{"ServiceAccount": "", "Token": "me:one/p for registry 1 of default/one"} {
		b = setUp(t, with("cacheType: "+kind+", requireServiceAccount: true"), map[string]string{"a": `. "${0%/a}/echo"`})
		if err := os.WriteFile(filepath.Join(b.dir, "echo"), []byte(fmt.Sprintf(echo, b.dir)), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.find(somebody("p", "one"), "r.example.com/x"); got != want {
			t.Errorf("a token that comes back as the password with cache type %s: %q, want %q", kind, got, want)
		}
	}
}

// Configurations that are refused, and why.
func TestConfigurations(t *testing.T) {
	good := "{name: a, apiVersion: credentialprovider.kubelet.k8s.io/v1, defaultCacheDuration: 1h, matchImages: [r.example.com]"
	token := good + ", tokenAttributes: {serviceAccountTokenAudience: x, requireServiceAccount: true, cacheType: Token"
	for text, want := range map[string]string{
		"- " + good + "}\n":                  "",
		"- " + good + "}\n- " + good + "}\n": `duplicate provider name "a"`,
		"- " + good + ", nosuch: 1}\n":       `unknown field`,
		"  []\n":                             "at least 1 item in plugins is required",
		"- {name: a/b}\n":                    "provider name cannot contain '/'",
		"- {name: absent" + strings.TrimPrefix(good, "{name: a") + "}\n": "no such file",
		"- {name: a, apiVersion: v1, matchImages: [x]}\n":                "Unsupported value",
		"- {name: a}\n": "at least 1 item in matchImages is required",
		"- " + strings.Replace(good, "1h", "-1h", 1) + "}\n":                "must be greater than or equal to 0",
		"- " + strings.Replace(good, "r.example.com", "'%r.ex'", 1) + "}\n": "match image is invalid",
		"- " + token + "}}\n": "",
		"- " + strings.Replace(token, "io/v1,", "io/v1beta1,", 1) + "}}\n":                                          "tokenAttributes is only supported for",
		"- " + strings.Replace(token, ", cacheType: Token", "", 1) + "}}\n":                                         "cacheType is required to be set",
		"- " + strings.Replace(token, "cacheType: Token", "cacheType: Ever", 1) + "}}\n":                            "Unsupported value",
		"- " + token + ", requiredServiceAccountAnnotationKeys: [a, a]}}\n":                                         "Duplicate value",
		"- " + token + ", requiredServiceAccountAnnotationKeys: [a], optionalServiceAccountAnnotationKeys: [a]}}\n": "cannot be both required and optional",
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{"a": "#!/bin/sh\n", "config.yaml": header + text} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		set, err := Load(Config{Path: dir, Bin: dir})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err == nil && !strings.HasPrefix(set.Hash(), "sha256:") {
			t.Errorf("hash %q", set.Hash())
		}
	}
	if set, err := Load(Config{}); set != nil || err != nil || len(set.Find(t.Context(), nil, "x")) != 0 || set.Hash() != "" {
		t.Error("no configuration is not nothing")
	}
	if _, err := Load(Config{Path: "/nonexistent", Bin: t.TempDir()}); err == nil {
		t.Error("a file that is not there")
	}
	if _, err := Load(Config{Path: "x", Bin: "/nonexistent"}); err == nil || err.Error() != "plugin binary directory /nonexistent did not exist" {
		t.Errorf("a directory that is not there: %v", err)
	}
}
