package build

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const travelling = "-- Dockerfile --\nFROM scratch AS a\nCOPY a.txt /a\nFROM scratch\nCOPY --from=a /a /b\nCOPY a.txt /c\n-- a.txt --\na\n"

// What one machine has built, another finds in a directory: the layers of the
// result, or with max of all stages.
func TestCacheTravels(t *testing.T) {
	needRoot(t)
	for _, everything := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "cache")
		places := []CachePlace{{Dir: dir, Max: everything}}
		first, _, err := build(t, open(t), travelling, func(o *Options) { o.CacheTo = places })
		if err != nil {
			t.Fatal(err)
		}
		second, events, err := build(t, open(t), travelling, func(o *Options) { o.CacheFrom = places })
		if err != nil {
			t.Fatal(err)
		}
		var known int
		for _, e := range events {
			if e.Done && e.Cached {
				known++
			}
		}
		if want := map[bool]int{false: 2, true: 3}[everything]; known != want {
			t.Errorf("max=%v: %d steps from the cache, want %d", everything, known, want)
		}
		if everything && second.ID != first.ID {
			t.Errorf("the images differ: %s, %s", first.ID, second.ID)
		}
	}
	var warned []string
	_, _, err := build(t, open(t), travelling, func(o *Options) {
		o.CacheFrom = []CachePlace{{Dir: "/nowhere"}}
		o.Warn = func(w Warning) { warned = append(warned, w.Text) }
	})
	if err != nil || !slices.ContainsFunc(warned, func(w string) bool { return strings.Contains(w, "/nowhere") }) {
		t.Errorf("without a cache: %v, warnings %q", err, warned)
	}
}

// A layer that a cache only says that it has is built.
func TestCacheLies(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "cache")
	if _, _, err := build(t, open(t), travelling, func(o *Options) { o.CacheTo = []CachePlace{{Dir: dir}} }); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil || len(blobs) < 3 {
		t.Fatal(blobs, err)
	}
	for _, b := range blobs {
		if raw, err := os.ReadFile(b); err == nil && len(raw) > 2 && raw[0] == 0x1f {
			raw[len(raw)-1] ^= 1
			if err := os.WriteFile(b, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	store := open(t)
	img, _, err := build(t, store, travelling, func(o *Options) { o.CacheFrom = []CachePlace{{Dir: dir}} })
	if err != nil || !slices.Contains(files(t, store, img), "/b -rw-r--r-- a") {
		t.Errorf("%v, %v", files(t, store, img), err)
	}
}

// A named context is a directory, or takes the place of an image.
func TestNamedContexts(t *testing.T) {
	needRoot(t)
	store := open(t)
	if _, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY f /of-other\n-- f --\nother\n", func(o *Options) { o.Tags = []string{"other:1"} }); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "1", "two": "2", ".dockerignore": "two"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	named := map[string]NamedContext{"extra": {Dir: dir}, "nowhere.example/base:9": {Image: "other:1"}}
	img, _, err := build(t, store, "-- Dockerfile --\nFROM nowhere.example/base:9\nCOPY --from=extra one /got\n", func(o *Options) { o.Contexts = named })
	if err != nil {
		t.Fatal(err)
	}
	got := files(t, store, img)
	for _, want := range []string{"/of-other -rw-r--r-- other", "/got -rw-r--r-- 1"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing of %q", want, got)
		}
	}
	_, _, err = build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY --from=extra two /got\n", func(o *Options) { o.Contexts = named })
	if err == nil || !strings.Contains(err.Error(), "the context extra") || !strings.Contains(err.Error(), "hides it") {
		t.Errorf("what is ignored: %v", err)
	}
}

// ADD of a repository: all of it, a directory of it, a commit that must be it, with
// and without its history.
func TestAddGit(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	root := t.TempDir()
	work := filepath.Join(root, "work.git")
	if err := os.MkdirAll(filepath.Join(work, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "sub", "file"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", work, "-c", "user.name=a", "-c", "user.email=a@b.example"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "-q", "-b", "main")
	run("add", ".")
	run("commit", "-q", "-m", "one")
	run("update-server-info")
	commit := run("rev-parse", "HEAD")
	server := httptest.NewServer(http.StripPrefix("/work.git", http.FileServer(http.Dir(filepath.Join(work, ".git")))))
	defer server.Close()
	url := server.URL + "/work.git"
	store := open(t)
	for line, want := range map[string]string{
		"ADD " + url + " /a/":                               "/a/sub/file -rw-r--r-- text",
		"ADD " + url + "#main:sub /a/":                      "/a/file -rw-r--r-- text",
		"ADD --checksum=" + commit + " " + url + " /b":      "/b/sub/file -rw-r--r-- text",
		"ADD --keep-git-dir=true " + url + " /c":            "/c/.git/HEAD -rw-r--r-- " + commit,
		"ADD --checksum=" + commit[:12] + " " + url + " /d": "/d/sub/file -rw-r--r-- text",
	} {
		img, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\n"+line+"\n", nil)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := files(t, store, img)
		if !slices.Contains(got, want) {
			t.Errorf("%s: %q is missing of %q", line, want, got)
		}
		if !strings.Contains(line, "keep") && slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "/.git") }) {
			t.Errorf("%s: the history came along", line)
		}
	}
	_, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nADD --checksum="+strings.Repeat("0", 40)+" "+url+" /b\n", nil)
	if err == nil || !strings.Contains(err.Error(), "--checksum wants 000") {
		t.Errorf("another commit: %v", err)
	}
}

// Each rule has its name in a warning, and what is right has none.
func TestLint(t *testing.T) {
	for dockerfile, want := range map[string]string{
		"FROM scratch AS a\nENV A=1 B=$A\nWORKDIR /x\nWORKDIR y\nCMD [\"/x\"]\n": "UndefinedVar 2",
		"FROM scratch AS a\nENV A=1\nFROM a\nARG B\nCOPY $A$B $C /\nEXPOSE 80\n": "UndefinedVar 5",
		"FROM scratch\ncopy a /a\nCOPY a /b\n":                                   "ConsistentInstructionCasing 2",
		"FROM scratch AS a\nFROM scratch AS A\n":                                 "StageNameCasing 2 DuplicateStageName 2",
		"FROM scratch AS scratch\n":                                              "ReservedStageName 1",
		"ARG X=1\nFROM base-$X-$Y:${Z:-1}\n":                                     "UndefinedArgInFrom 2",
		"FROM --platform=$TARGETPLATFORM scratch\n":                              "RedundantTargetPlatform 1",
		"FROM --platform=linux/amd64 scratch\n":                                  "FromPlatformFlagConstDisallowed 1",
		"FROM --platform=linux/amd64 scratch AS build_amd64\n":                   "",
		"FROM scratch\nWORKDIR a\n":                                              "WorkdirRelativePath 2",
		"FROM scratch\nCMD a b\n":                                                "JSONArgsRecommended 2",
		"FROM scratch\nSHELL [\"x\"]\nCMD a b\n":                                 "",
		"FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n":                               "MultipleInstructionsDisallowed 2",
		"FROM scratch\nENV a b\nLABEL c d\n":                                     "LegacyKeyValueFormat 2 LegacyKeyValueFormat 3",
		"FROM scratch\nARG MY_TOKEN\nENV PUBLIC_KEY=1 DB_PASSWORD=x\n":           "SecretsUsedInArgOrEnv 2 SecretsUsedInArgOrEnv 3",
		"FROM scratch\nEXPOSE 80/TCP 127.0.0.1:80:80\n":                          "ExposeInvalidFormat 2 ExposeProtoCasing 2",
		"FROM scratch\nLABEL a=1 \\\n\n  b=2\n":                                  "NoEmptyContinuation 4",
		"# check=skip=JSONArgsRecommended\nFROM scratch\nCMD a\n":                "",
	} {
		found, err := Describe(Options{Content: []byte(dockerfile), Dockerfile: "Dockerfile"})
		if err != nil {
			t.Errorf("%q: %v", dockerfile, err)
			continue
		}
		var got []string
		for _, w := range found.Warnings {
			got = append(got, w.Rule+" "+string(rune('0'+w.Line)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q:\n got %s\nwant %s", dockerfile, got, want)
		}
	}
}

// The ARGs and stages that a Dockerfile offers.
func TestDescribe(t *testing.T) {
	found, err := Describe(Options{Target: "test", Content: []byte(
		"ARG V=1\nFROM scratch AS base\n# A is for base\nARG A=x\n# test runs the tests\nFROM base AS test\nARG B\nFROM base\nARG C\n"), Dockerfile: "Dockerfile"})
	if err != nil || len(found.Targets) != 3 || !found.Targets[2].Default || found.Targets[1].Description != "runs the tests" {
		t.Errorf("targets %+v, %v", found.Targets, err)
	}
	var names []string
	for _, a := range found.Args {
		names = append(names, a.Name+"="+a.Value)
	}
	slices.Sort(names)
	if want := []string{"A=x", "B=", "V=1"}; !slices.Equal(names, want) {
		t.Errorf("ARGs %q, want %q", names, want)
	}
}

// A variable that nothing sets is told of once the base is known.
func TestUndefinedVar(t *testing.T) {
	needRoot(t)
	var rules []string
	_, _, err := build(t, open(t), "-- Dockerfile --\nFROM scratch\nENV A=1\nLABEL l=$A$B${C:-d}\n", func(o *Options) {
		o.Warn = func(w Warning) { rules = append(rules, w.Rule+" "+w.Text) }
	})
	if err != nil || len(rules) != 1 || !strings.Contains(rules[0], "UndefinedVar") || !strings.Contains(rules[0], "$B") {
		t.Errorf("%q, %v", rules, err)
	}
}
