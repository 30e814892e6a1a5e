package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sampan-dev/sampan/node/image"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("unpacking layers sets owners and mounts overlayfs: needs root")
	}
}

// build builds a txtar's files, which include the Dockerfile.
func build(t *testing.T, store *image.Store, archive string, change func(*Options)) (image.Image, []Event, error) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var events []Event
	opts := Options{
		Context: dir, Tags: []string{"test:1"}, Images: store, Cache: filepath.Join(t.TempDir(), "cache"),
		Progress: func(e Event) { events = append(events, e) },
	}
	if change != nil {
		change(&opts)
	}
	img, err := Build(t.Context(), opts)
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), dir, "."))
	}
	return img, events, err
}

func open(t *testing.T) *image.Store {
	t.Helper()
	store, err := image.Open(image.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// files lists what a container of the image would see, merged by hand from the
// layers: "path mode uid content".
func files(t *testing.T, store *image.Store, img image.Image) []string {
	t.Helper()
	rootfs, err := store.Prepare("look", img.ID)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, lower := range slices.Backward(rootfs.Lower) {
		err := filepath.WalkDir(lower, func(p string, d fs.DirEntry, err error) error {
			if err != nil || p == lower {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			line := info.Mode().String()
			if info.Mode().IsRegular() {
				raw, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				line += " " + strings.TrimSpace(string(raw))
			}
			seen[strings.TrimPrefix(p, lower)] = line
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(seen)) {
		lines = append(lines, p+" "+seen[p])
	}
	if err := store.Release("look"); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestScratchImage(t *testing.T) {
	needRoot(t)
	store := open(t)
	img, events, err := build(t, store, `
-- Dockerfile --
ARG WHO=world
FROM scratch
ARG WHO
ENV GREETING="hello $WHO" A=1
COPY --chmod=755 server /bin/
COPY conf /etc/app
COPY <<EOF /etc/motd
for $WHO
EOF
WORKDIR /srv
WORKDIR data
EXPOSE 8080 9000-9001/udp
USER 1000:1000
LABEL a=b
ENTRYPOINT ["/bin/server"]
CMD ["-v"]
-- server --
binary
-- conf/a.conf --
a
-- conf/sub/b.conf --
b
-- .dockerignore --
**/*.tmp
-- conf/x.tmp --
no
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/bin drwxr-xr-x", "/bin/server -rwxr-xr-x binary",
		"/etc drwxr-xr-x", "/etc/app drwxr-xr-x", "/etc/app/a.conf -rw-r--r-- a", "/etc/app/sub drwxr-xr-x",
		"/etc/app/sub/b.conf -rw-r--r-- b", "/etc/motd -rw-r--r-- for world", "/srv drwxr-xr-x", "/srv/data drwxr-xr-x",
	}
	if got := files(t, store, img); !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c := img.Config.Config
	got := fmt.Sprintln(c.Env, c.Entrypoint, c.Cmd, c.User, c.WorkingDir, slices.Sorted(maps.Keys(c.ExposedPorts)), c.Labels)
	if want := "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GREETING=hello world A=1] [/bin/server] [-v] 1000:1000 /srv/data [8080/tcp 9000/udp 9001/udp] map[a:b]\n"; got != want {
		t.Errorf("config %s\nwant   %s", got, want)
	}
	if len(events) != 2*12 {
		t.Errorf("%d events, want one before and one after each of 12 instructions", len(events))
	}
}

// Building again takes every layer from the cache and gives the same image; a
// changed file changes what comes after it, and nothing before.
func TestCache(t *testing.T) {
	needRoot(t)
	store := open(t)
	cacheDir := t.TempDir()
	run := func(content string) (image.Image, string) {
		img, events, err := build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY a /\nCOPY b /\nWORKDIR /w\n-- a --\na\n-- b --\n"+content+"\n",
			func(o *Options) { o.Cache = cacheDir })
		if err != nil {
			t.Fatal(err)
		}
		trace := ""
		for _, e := range events {
			if e.Done {
				trace += map[bool]string{true: "c", false: "x"}[e.Cached]
			}
		}
		return img, trace
	}
	first, trace := run("1")
	if trace != "xxx" {
		t.Errorf("first build: %s", trace)
	}
	again, trace := run("1")
	if trace != "ccc" || again.ID != first.ID {
		t.Errorf("second build: %s, %s then %s", trace, first.ID, again.ID)
	}
	if _, trace = run("2"); trace != "cxx" {
		t.Errorf("after a change: %s", trace)
	}
}

func TestStages(t *testing.T) {
	needRoot(t)
	store := open(t)
	img, _, err := build(t, store, `
-- Dockerfile --
FROM scratch AS base
COPY passwd /etc/passwd
COPY data /real/data
FROM base AS unused
COPY missing /
FROM base AS maker
COPY one /out/one
ADD two /out/
FROM base
COPY --from=maker --chown=app /out /in/
COPY --from=0 /real/data /copied
-- passwd --
root:x:0:0::/:/bin/sh
app:x:77:78::/:/bin/sh
-- data --
d
-- one --
1
-- two --
2
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/copied -rw-r--r-- d", "/in drwxr-xr-x", "/in/one -rw-r--r-- 1", "/in/two -rw-r--r-- 2"}
	got := slices.DeleteFunc(files(t, store, img), func(l string) bool {
		return !strings.HasPrefix(l, "/in") && !strings.HasPrefix(l, "/copied")
	})
	if !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// echo stands for a machine: it leaves one file and removes another.
type echo struct{ code int }

func (e echo) Run(_ context.Context, r Run) error {
	r.Output([]byte("ran " + strings.Join(r.Args, " ") + "\n"))
	if e.code != 0 {
		return &ExitError{Code: e.code}
	}
	return os.WriteFile(filepath.Join(r.Upper, "made"), []byte(strings.Join(r.Env, ",")), 0o600)
}

func TestRun(t *testing.T) {
	needRoot(t)
	store := open(t)
	const archive = "-- Dockerfile --\nFROM scratch\nENV A=1\nARG B=2\nCOPY a /\nRUN make  it\n-- a --\na\n"
	img, events, err := build(t, store, archive, func(o *Options) { o.Runner = echo{} })
	if err != nil {
		t.Fatal(err)
	}
	got := files(t, store, img)
	if want := "/made -rw------- PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin,A=1,B=2"; !slices.Contains(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if !slices.ContainsFunc(events, func(e Event) bool { return string(e.Output) == "ran /bin/sh -c make  it\n" }) {
		t.Errorf("the command's output is not among the events")
	}
	if _, _, err := build(t, store, archive, func(o *Options) { o.Runner = echo{code: 3}; o.NoCache = true }); err == nil ||
		err.Error() != "./Dockerfile:5: RUN make  it: exit code 3" {
		t.Errorf("failing RUN: %v", err)
	}
}

// Every mistake is told with file and line, and what was expected.
func TestMistakes(t *testing.T) {
	needRoot(t)
	for dockerfile, want := range map[string]string{
		"FORM scratch":                                  `^./Dockerfile:1: .*unknown instruction: FORM`,
		"FROM scratch\nCOPY a":                          `^./Dockerfile:2: .*COPY requires at least two arguments`,
		"FROM scratch\n\nCOPY nothere /":                `^./Dockerfile:3: COPY nothere /: "nothere" is not in the build context \(.\): not found`,
		"FROM scratch\nCOPY a b /c":                     `^./Dockerfile:2: .*destination "/c" must be a directory and end with a /`,
		"FROM scratch\nEXPOSE 99999":                    `^./Dockerfile:2: .*port "99999": want a number from 1 to 65535`,
		"FROM scratch\nCOPY --chmod=rwx a /":            `^./Dockerfile:2: .*--chmod=rwx a /: invalid chmod parameter`,
		"FROM scratch\nCOPY --chown=nobody a /":         `^./Dockerfile:2: .*"nobody" is not in the image's /etc/passwd`,
		"FROM scratch\nRUN true":                        `^./Dockerfile:2: RUN true: RUN needs root`,
		"FROM scratch\nADD http://127.0.0.1:1/a.git /a": `^./Dockerfile:2: ADD .*git repository http://127.0.0.1:1/a.git: `,
		"FROM scratch\nCOPY hidden /":                   `^./Dockerfile:2: .*"hidden" is not in the build context \(.\) \(.dockerignore hides it\)`,
		"":                                              `^./Dockerfile:1: file with no instructions`,
	} {
		_, _, err := build(t, open(t), "-- Dockerfile --\n"+dockerfile+"\n-- a --\na\n-- b --\nb\n-- hidden --\nh\n-- .dockerignore --\nhidden\n", nil)
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%q:\n got %v\nwant %s", dockerfile, err, want)
		}
	}
}
