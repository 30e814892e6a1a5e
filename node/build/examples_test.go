package build

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// Examples of the Dockerfile reference, with scratch for their bases: the files
// that come out, or a part of the config.
func TestReference(t *testing.T) {
	needRoot(t)
	const files2 = "-- a.txt --\na\n-- b.txt --\nb\n-- x/a.txt --\nxa\n-- y/sub/c.txt --\nc\n-- y/sub/d.md --\nd\n"
	for name, c := range map[string]struct {
		dockerfile string
		args       map[string]string
		want       []string // lines of files, or "config: …"
		not        []string
	}{
		"ARG before FROM": {
			dockerfile: "ARG VERSION=v1\nFROM scratch AS base-v1\nCOPY a.txt /\nFROM base-${VERSION}\nARG VERSION\nENV V=$VERSION\n",
			want:       []string{"/a.txt -rw-r--r-- a", "config: V=v1"},
		},
		"ARG given": {
			dockerfile: "FROM scratch\nARG CONT_IMG_VER\nENV CONT_IMG_VER=${CONT_IMG_VER:-v1.0.0}\n",
			args:       map[string]string{"CONT_IMG_VER": "v2"}, want: []string{"config: CONT_IMG_VER=v2"},
		},
		"ARG default": {
			dockerfile: "FROM scratch\nARG CONT_IMG_VER\nENV CONT_IMG_VER=${CONT_IMG_VER:-v1.0.0}\n", want: []string{"config: CONT_IMG_VER=v1.0.0"},
		},
		"platform ARGs": {
			dockerfile: "FROM scratch\nARG TARGETARCH TARGETOS\nENV P=$TARGETOS/${TARGETARCH:+known}\n", want: []string{"config: P=linux/known"},
		},
		"ARG of a base stage": {
			dockerfile: "FROM scratch AS a\nARG X=1\nFROM a\nENV X2=$X\n", want: []string{"config: X2=1"},
		},
		"ENV in one line": {
			dockerfile: "FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n", want: []string{"config: abc=bye def=hello ghi=bye"},
		},
		"escape directive": {
			dockerfile: "# escape=`\nFROM scratch\nCOPY a.txt `\n  /c\n", want: []string{"/c -rw-r--r-- a"},
		},
		"COPY --parents": {
			dockerfile: "FROM scratch\nCOPY --parents ./x/a.txt ./y/sub/c.txt /parents/\n",
			want:       []string{"/parents/x/a.txt -rw-r--r-- xa", "/parents/y/sub/c.txt -rw-r--r-- c"}, not: []string{"/parents/y/sub/d.md"},
		},
		"COPY --parents **": {
			dockerfile: "FROM scratch\nCOPY --parents **/*.txt /p/\n", want: []string{"/p/a.txt -rw-r--r-- a", "/p/y/sub/c.txt -rw-r--r-- c"},
		},
		"COPY --parents with a pivot": {
			dockerfile: "FROM scratch\nCOPY --parents ./x/./a.txt /p/\nCOPY --parents y/./sub/*.txt /q/\nCOPY --parents y/./**/*.md /r/\nCOPY --parents y/sub/./ /s/\nCOPY --parents ./a.txt /t/\n",
			want:       []string{"/p/a.txt -rw-r--r-- xa", "/q/sub/c.txt -rw-r--r-- c", "/r/sub/d.md -rw-r--r-- d", "/s/c.txt -rw-r--r-- c", "/s/d.md -rw-r--r-- d", "/t/a.txt -rw-r--r-- a"},
			not:        []string{"/p/x/a.txt", "/q/y", "/r/y"},
		},
		"COPY --parents with ** before a pivot": {
			dockerfile: "FROM scratch\nCOPY --parents ./**/./sub /p/\nCOPY --parents **/./**/*.md /q/\n",
			want:       []string{"/p/sub/c.txt -rw-r--r-- c", "/q/sub/d.md -rw-r--r-- d"}, not: []string{"/p/y", "/p/a.txt", "/q/y"},
		},
		"a pattern without a match": {
			dockerfile: "FROM scratch\nCOPY *.nothing /p/\nCOPY --parents **/*.nothing no?e/./x /q/\nCOPY a.txt /r\n", want: []string{"/r -rw-r--r-- a"}, not: []string{"/p/a.txt", "/q/a.txt"},
		},
		"COPY --exclude": {
			dockerfile: "FROM scratch\nCOPY --exclude=*.txt y/sub /d/\n", want: []string{"/d/d.md -rw-r--r-- d"}, not: []string{"/d/c.txt"},
		},
		"COPY --chmod symbolic": {
			dockerfile: "FROM scratch\nCOPY --chmod=u=rwX,go=rX y /d\nCOPY --chmod=a+x a.txt /x\n", want: []string{"/d/sub drwxr-xr-x", "/x -rwxr-xr-x a"},
		},
		"COPY --link": {
			dockerfile: "FROM scratch\nCOPY --link x /foo/\n", want: []string{"/foo/a.txt -rw-r--r-- xa"},
		},
		"several heredocs": {
			dockerfile: "FROM scratch\nCOPY <<one.sh <<\"two.sh\" /bin/\nfirst\none.sh\n$second\ntwo.sh\n", want: []string{"/bin/one.sh -rw-r--r-- first", "/bin/two.sh -rw-r--r-- $second"},
		},
		"WORKDIR": {
			dockerfile: "FROM scratch\nENV DIRPATH=/path\nWORKDIR $DIRPATH/$DIRNAME\nWORKDIR b\nCOPY a.txt c\n", want: []string{"/path/b/c -rw-r--r-- a", "config: /path/b"},
		},
		"ONBUILD": {
			dockerfile: "FROM scratch AS base\nONBUILD COPY a.txt /trigger\nFROM base\n", want: []string{"/trigger -rw-r--r-- a"},
		},
		"the config": {
			dockerfile: "FROM scratch\nSTOPSIGNAL SIGQUIT\nVOLUME /data /more\nEXPOSE 80/udp\nSHELL [\"/bin/x\", \"-c\"]\nHEALTHCHECK --interval=5m CMD curl -f http://localhost/\nCMD run it\nUSER 7:8\n",
			want:       []string{"config: SIGQUIT map[/data:{} /more:{}]", "config: [/bin/x -c run it]", "config: 7:8"},
		},
		"CMD before ENTRYPOINT": {
			dockerfile: "FROM scratch\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n", want: []string{"config: [own]"},
		},
		"ENTRYPOINT over an inherited CMD": {
			dockerfile: "FROM scratch AS base\nCMD [\"inherited\"]\nFROM base\nENTRYPOINT [\"e\"]\n", want: []string{"config: [] "},
		},
		"STOPSIGNAL with a number after it": {
			dockerfile: "FROM scratch\nSTOPSIGNAL SIGRTMIN+3\n", want: []string{"config: SIGRTMIN+3"},
		},
		"replacement forms": {
			dockerfile: "FROM scratch\nARG X=foobarbaz\nENV A=${X#foo} B=${X%baz} C=${X/bar/BAR} D=${X//a/A} E=${X##*b} F=${X%%b*} G=${X#f?o} H=\\$X I=${X:+s}${N:+n}${N-d}${N:-e}\n",
			want:       []string{"config: A=barbaz B=foobar C=fooBARbaz D=foobArbAz E=az F=foo G=barbaz H=$X I=sde"},
		},
		"LABEL with comments between": {
			dockerfile: "FROM scratch\nENV a=\"x y\" \\\n  # a comment\n\n  b=z\\ z\n", want: []string{"config: a=x y b=z z"},
		},
		"WORKDIR of nothing": {
			dockerfile: "FROM scratch\nWORKDIR /a\nWORKDIR ../b/./c\n", want: []string{"config: /b/c"},
		},
		"a stage by number, and its target": {
			dockerfile: "FROM scratch AS build\nCOPY a.txt /bin/hello\nFROM scratch\nCOPY --from=0 /bin/hello /bin/hello\n", want: []string{"/bin/hello -rw-r--r-- a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			img, _, err := build(t, store, "-- Dockerfile --\n"+c.dockerfile+files2, func(o *Options) { o.Args = c.args })
			if err != nil {
				t.Fatal(err)
			}
			cfg := img.Config.Config
			config := fmt.Sprintln(strings.Join(cfg.Env, " "), cfg.StopSignal, cfg.Volumes, cfg.WorkingDir, cfg.Cmd, cfg.User)
			got := files(t, store, img)
			for _, w := range c.want {
				text, isConfig := strings.CutPrefix(w, "config: ")
				if isConfig && !strings.Contains(config, text) || !isConfig && !slices.Contains(got, w) {
					t.Errorf("%q is missing:\n%s\n%s", w, strings.Join(got, "\n"), config)
				}
			}
			for _, n := range c.not {
				if slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, n+" ") }) {
					t.Errorf("%q should not be there", n)
				}
			}
			if layers := len(img.Layers); len(img.Config.History) > 0 {
				for _, h := range img.Config.History {
					if !h.EmptyLayer {
						layers--
					}
				}
				if layers != 0 {
					t.Errorf("history and layers differ by %d", layers)
				}
			}
		})
	}
}

// What Docker refuses is refused, with its place and its reason.
func TestReferenceRefusals(t *testing.T) {
	needRoot(t)
	for line, want := range map[string]string{
		"STOPSIGNAL NOPE":                       "no such signal",
		"STOPSIGNAL 0":                          "no such signal",
		"STOPSIGNAL SIGRTMIN+16":                "no such signal",
		"ONBUILD ONBUILD RUN x":                 "Chaining ONBUILD",
		"ONBUILD FROM x":                        "FROM isn't allowed",
		"SHELL /bin/sh":                         "JSON form",
		"EXPOSE abc":                            "want a number",
		"ENV a":                                 "two arguments",
		"COPY nosuch /":                         "not in the build context",
		"COPY ../x /":                           "not in the build context",
		"COPY --link=maybe a /":                 "boolean",
		"ADD --checksum=md5:1 http://[::1]:1 /": "unsupported digest algorithm",
		"HEALTHCHECK --interval=1us CMD true":   "less than 1ms",
		"ENV X=${Y:?missing}":                   "missing",
		"NOPE x":                                "unknown instruction",
	} {
		_, _, err := build(t, open(t), "-- Dockerfile --\nFROM scratch\n"+line+"\n-- a --\na\n", nil)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Dockerfile:2: ") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestDownload(t *testing.T) {
	needRoot(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir/file.txt" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		_, _ = w.Write([]byte("content"))
	}))
	defer server.Close()
	const sum = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
	store := open(t)
	img, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nADD --checksum="+sum+" "+server.URL+"/dir/file.txt /in/\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, store, img); !slices.Contains(got, "/in/file.txt -rw------- content") {
		t.Errorf("files %q", got)
	}
	for path, want := range map[string]string{
		"--checksum=sha256:" + strings.Repeat("0", 64) + " URL/dir/file.txt /": "has checksum " + sum,
		"URL/missing /":  "404",
		"URL/repo.git /": "git repository",
	} {
		_, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nADD "+strings.ReplaceAll(path, "URL", server.URL)+"\n", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ADD %s: %v, want %q in it", path, err, want)
		}
	}
}

// With an epoch, two builds of equal input on two machines are equal to the byte;
// the platforms of one build make an index, with a statement for each.
func TestReproducible(t *testing.T) {
	needRoot(t)
	const archive = "-- Dockerfile --\nFROM scratch\nCOPY a /\nWORKDIR /w\nLABEL a=b\n-- a --\na\n"
	at := time.Unix(1000000000, 0)
	first, _, err := build(t, open(t), archive, func(o *Options) { o.Epoch = &at })
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := build(t, open(t), archive, func(o *Options) { o.Args = map[string]string{"SOURCE_DATE_EPOCH": "1000000000"} })
	if err != nil || first.Manifest != second.Manifest {
		t.Errorf("%s, then %s, %v", first.Manifest, second.Manifest, err)
	}
	store := open(t)
	img, _, err := build(t, store, archive, func(o *Options) {
		o.Platforms, o.Provenance = []string{"linux/amd64", "linux/arm64/v8"}, true
	})
	if err != nil || img.Index == "" {
		t.Fatalf("index %q, %v", img.Index, err)
	}
	_, raw, err := store.Manifest("docker.io/library/test", "1")
	if err != nil || strings.Count(string(raw), "attestation-manifest") != 2 || !strings.Contains(string(raw), "arm64") {
		t.Errorf("the index: %v\n%s", err, raw)
	}
}

// Warnings tell of what is doubtful, an excerpt where a mistake is.
func TestTold(t *testing.T) {
	needRoot(t)
	var warned []Warning
	_, _, err := build(t, open(t), "-- Dockerfile --\nFROM scratch as x\nCOPY a /\n-- a --\na\n", func(o *Options) {
		o.Warn = func(w Warning) { warned = append(warned, w) }
		o.Args = map[string]string{"NOBODY": "1"}
	})
	if err != nil || len(warned) != 2 || warned[0].Rule != "FromAsCasing" || !strings.Contains(warned[1].Text, "NOBODY") {
		t.Errorf("warnings %+v, %v", warned, err)
	}
	if _, _, err = build(t, open(t), "-- Dockerfile --\n# check=error=true\nFROM scratch as x\n", nil); err == nil {
		t.Error("check=error=true has no effect")
	}
	f := &Failure{Path: "D", Line: 2, End: 2, Err: image.ErrInvalid, raw: []byte("FROM a\nRUN b\nRUN c\n")}
	if got, want := f.Excerpt(), "   1 |     FROM a\n   2 | >>> RUN b\n   3 |     RUN c\n"; got != want {
		t.Errorf("excerpt:\n%s", got)
	}
}

// Each platform of one build has its own values of the platform's variables, wherever
// they are used.
func TestPlatformsHaveTheirOwn(t *testing.T) {
	needRoot(t)
	store := open(t)
	_, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nARG TARGETARCH\nLABEL of=$TARGETARCH\nENV A=$TARGETARCH\nCOPY $TARGETARCH.txt /in\n-- amd64.txt --\na\n-- arm64.txt --\nb\n", func(o *Options) {
		o.Platforms = []string{"linux/amd64", "linux/arm64"}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := store.Manifest("docker.io/library/test", "1")
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) != 2 {
		t.Fatalf("index %s, %v", raw, err)
	}
	blob := func(d digest.Digest, into any) {
		t.Helper()
		f, err := store.BlobOf("docker.io/library/test", d)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := json.NewDecoder(f).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	layers := map[digest.Digest]bool{}
	for _, m := range index.Manifests {
		var manifest ocispec.Manifest
		blob(m.Digest, &manifest)
		var config ocispec.Image
		blob(manifest.Config.Digest, &config)
		layers[config.RootFS.DiffIDs[0]] = true
		arch := m.Platform.Architecture
		if config.Config.Labels["of"] != arch || !slices.Contains(config.Config.Env, "A="+arch) {
			t.Errorf("%s: labels %v, environment %v", arch, config.Config.Labels, config.Config.Env)
		}
	}
	if len(layers) != 2 {
		t.Error("both platforms have the same file")
	}
}
