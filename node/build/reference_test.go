package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/image"
)

// The rules of the Dockerfile reference, a row each: testdata/reference has a file a
// chapter. A row is "=== the rule", what the build is given ("with arg A=B"), the
// Dockerfile, "----", and lines of what must come out:
//
//	/path MODE UID:GID CONTENT   a file, or "/path -> target UID:GID", or "/path = hardlink"
//	file /path, no /path         it is there, it is not
//	env K=V, config KEY JSON     of the image's config; .KEY is beside it
//	ran …                        of a RUN, as recorder writes it
//	warn TEXT, quiet             a warning with the text in it, none at all
//	error TEXT                   the build fails with the text in its words
func TestReference(t *testing.T) {
	needRoot(t)
	chapters, err := filepath.Glob("testdata/reference/*.txt")
	if err != nil || len(chapters) == 0 {
		t.Fatal("no chapters", err)
	}
	given := materials(t)
	for _, chapter := range chapters {
		raw, err := os.ReadFile(chapter)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split(string(raw), "=== ")[1:] {
			r := readRow(t, text)
			t.Run(strings.TrimSuffix(filepath.Base(chapter), ".txt")+"/"+r.name, func(t *testing.T) { r.try(t, given) })
		}
	}
}

// row is one rule.
type row struct {
	name, dockerfile string
	with, want       []string
}

func readRow(t *testing.T, text string) row {
	t.Helper()
	name, rest, _ := strings.Cut(text, "\n")
	head, want, ok := strings.Cut(rest, "\n----\n")
	if !ok {
		t.Fatalf("%q has no ----", name)
	}
	r := row{name: name}
	for strings.HasPrefix(head, "with ") {
		line, after, _ := strings.Cut(head, "\n")
		r.with, head = append(r.with, strings.TrimPrefix(line, "with ")), after
	}
	r.dockerfile = head + "\n"
	for _, line := range strings.Split(want, "\n") {
		if line != "" {
			r.want = append(r.want, line)
		}
	}
	if len(r.want) == 0 {
		t.Fatalf("%q wants nothing", name)
	}
	return r
}

// try builds the row's Dockerfile and compares.
func (r row) try(t *testing.T, given string) {
	store := open(t)
	seen := recorder{lines: map[string]bool{}}
	var warned []string
	opts := Options{
		Context: given, Dockerfile: filepath.Join(t.TempDir(), "Dockerfile"), Content: []byte(r.dockerfile), Images: store,
		Cache: filepath.Join(t.TempDir(), "cache"), Args: map[string]string{}, Runner: seen,
		Contexts: map[string]NamedContext{}, Secrets: map[string]Secret{}, Labels: map[string]string{},
		Warn: func(w Warning) { warned = append(warned, w.Rule+": "+w.Text) },
	}
	for _, w := range r.with {
		r.give(t, &opts, w)
	}
	img, err := Build(t.Context(), opts)
	if err != nil {
		err = errors.New(strings.NewReplacer(filepath.Dir(opts.Dockerfile)+"/", "", given, ".").Replace(err.Error()))
	}
	failing := slices.ContainsFunc(r.want, func(w string) bool { return strings.HasPrefix(w, "error ") })
	if err != nil && !failing {
		t.Fatal(err)
	}
	got := seen.lines
	if err == nil {
		maps.Copy(got, content(t, store, img))
		history(t, img)
	}
	for _, w := range r.want {
		verb, what, _ := strings.Cut(w, " ")
		ok := got[w]
		switch verb {
		case "error":
			ok = err != nil && strings.Contains(err.Error(), what)
		case "warn":
			ok = slices.ContainsFunc(warned, func(text string) bool { return strings.Contains(strings.TrimPrefix(text, ": "), what) })
		case "quiet":
			ok = len(warned) == 0
		case "no":
			ok = !got["file "+what]
		}
		if !ok {
			t.Errorf("missing: %s", w)
		}
	}
	if t.Failed() {
		t.Logf("error: %v\nwarnings: %q\n%s", err, warned, strings.Join(slices.Sorted(maps.Keys(got)), "\n"))
	}
}

// give adds what a row's build is given.
func (r row) give(t *testing.T, o *Options, with string) {
	t.Helper()
	what, text, _ := strings.Cut(with, " ")
	name, value, _ := strings.Cut(text, "=")
	switch what {
	case "arg":
		o.Args[name] = value
	case "label":
		o.Labels[name] = value
	case "target":
		o.Target = text
	case "platform":
		o.Platforms = strings.Split(text, ",")
	case "context":
		o.Contexts[name] = NamedContext{Dir: filepath.Join(o.Context, value)}
	case "secret":
		o.Secrets[name] = Secret{Value: []byte(value)}
	case "device":
		seen := o.Runner.(recorder)
		seen.devices = append(seen.devices, text)
		o.Runner = seen
	case "allow":
		o.AllowDevices = append(o.AllowDevices, text)
	case "insecure":
		o.Insecure = true
	case "ignore":
		if err := os.WriteFile(o.Dockerfile+".dockerignore", []byte(strings.ReplaceAll(text, "|", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("with %s: what is that?", with)
	}
}

// history fails when an image's history and its layers differ.
func history(t *testing.T, img image.Image) {
	t.Helper()
	layers := len(img.Layers)
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			layers--
		}
	}
	if layers != 0 && len(img.Config.History) > 0 {
		t.Errorf("history and layers differ by %d", layers)
	}
}

// content is what an image has, in the words of a row.
func content(t *testing.T, store *image.Store, img image.Image) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	var packed bytes.Buffer
	if err := WriteTar(t.Context(), store, img, nil, &packed); err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(&packed); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := "/" + strings.TrimSuffix(h.Name, "/")
		line := strings.TrimRight(fmt.Sprintf("%s %04o %d:%d %s", name, h.Mode, h.Uid, h.Gid, strings.TrimSuffix(string(raw), "\n")), " ")
		switch h.Typeflag {
		case tar.TypeSymlink:
			line = fmt.Sprintf("%s -> %s %d:%d", name, h.Linkname, h.Uid, h.Gid)
		case tar.TypeLink:
			line = fmt.Sprintf("%s = /%s", name, h.Linkname)
		}
		lines[line], lines["file "+name] = true, true
	}
	raw, err := store.RawConfig(img)
	if err != nil {
		t.Fatal(err)
	}
	var whole, config map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &whole), json.Unmarshal(whole["config"], &config)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"Cmd", "Entrypoint", "OnBuild"} {
		if config[key] == nil {
			config[key] = json.RawMessage("null")
		}
	}
	for key, value := range config {
		lines["config "+key+" "+string(value)] = true
	}
	for key, value := range whole {
		lines["config ."+key+" "+string(value)] = true
	}
	for _, kv := range img.Config.Config.Env {
		lines["env "+kv] = true
	}
	return lines
}

// recorder is a machine that writes down what it is told to run.
type recorder struct {
	lines   map[string]bool
	devices []string
}

// FindDevices has devices by their names; those that end in "free" are everybody's.
func (r recorder) FindDevices(pattern string) []Device {
	var found []Device
	for _, name := range r.devices {
		if strings.HasPrefix(name, pattern) {
			found = append(found, Device{Name: name, Free: strings.HasSuffix(name, "free")})
		}
	}
	return found
}

func (r recorder) Run(_ context.Context, run Run) error {
	say := func(format string, args ...any) { r.lines["ran "+fmt.Sprintf(format, args...)] = true }
	var words []string
	for _, a := range run.Args {
		words = append(words, fmt.Sprintf("%q", a))
	}
	say("%s", strings.Join(words, " "))
	say("in %s as %d:%d %v", run.WorkingDir, run.UID, run.GID, run.Groups)
	for _, kv := range run.Env {
		say("env %s", kv)
	}
	say("net %s", map[bool]string{true: "none", false: "host"}[run.NetworkNone])
	say("host %s", run.Hostname)
	if run.Insecure {
		say("insecure")
	}
	say("devices %s", strings.Join(run.Devices, " "))
	for _, m := range run.Mounts {
		how := map[bool]string{true: "ro", false: "rw"}[m.ReadOnly]
		if m.Source == "" {
			say("mount %s tmpfs %d", m.Target, m.Size)
			continue
		}
		say("mount %s %s", m.Target, how)
		one, err := outside(m.Source)
		if err != nil {
			return err
		}
		say("mount %s %s %s", m.Target, how, one)
		if _, err := os.Lstat(filepath.Join(m.Source, "private")); errors.Is(err, os.ErrNotExist) {
			say("mount %s %s without private", m.Target, how)
		}
	}
	return nil
}

// outside is a file of this machine as "MODE UID:GID CONTENT".
func outside(at string) (string, error) {
	root, err := os.OpenRoot(filepath.Dir(at))
	if err != nil {
		return "", err
	}
	defer root.Close()
	s, err := (&tree{Root: root}).single(filepath.Base(at))
	if err != nil {
		return "", err
	}
	uid, gid := ownerOf(s.info)
	text := fmt.Sprintf("%04o %d:%d", unixMode(s.info.Mode()), uid, gid)
	if s.info.Mode().IsRegular() {
		raw, err := os.ReadFile(at)
		return text + " " + strings.TrimSuffix(string(raw), "\n"), err
	}
	return text, nil
}

// materials makes the context of all rows.
func materials(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"a.txt": "a\n", "b.txt": "b\n", "home.txt": "home\n", "home.md": "homemd\n", "x/a.txt": "xa\n", "y/sub/c.txt": "c\n", "y/sub/d.md": "d\n",
		"with space.txt": "space\n", "arr[0].txt": "bracket\n", "private/inner/secret": "s\n", "tree/lib/f": "f\n", "twins/one": "same\n",
		"owned.txt": "owned\n", "empty.tar.gz": "", "like.gz": "\x1f\x8bno gzip", "usr/usr/lib/kept": "k\n", "rooted/kept": "k\n",
		"accounts/passwd": "root:x:0:0::/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\n", "accounts/group": "root:x:0:\nmygroup:x:77:\nmore:x:78:app\n",
	} {
		p := filepath.Join(dir, name)
		must(os.MkdirAll(filepath.Dir(p), 0o755))
		must(os.WriteFile(p, []byte(text), 0o644))
	}
	for link, to := range map[string]string{
		"link": "a.txt", "dirlink": "y/sub", "dangling": "nowhere", "absolute": "/a.txt", "outside": "../../..", "loop": "loop",
		"rooted/current": "/opt/real", "usr/lib": "usr/lib",
	} {
		must(os.Symlink(to, filepath.Join(dir, link)))
	}
	must(os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	must(os.Link(filepath.Join(dir, "twins/one"), filepath.Join(dir, "twins/two")))
	must(os.Chown(filepath.Join(dir, "owned.txt"), 7, 8))
	for name, mode := range map[string]os.FileMode{"private": 0o700, "private/inner": 0o700, "private/inner/secret": 0o600} {
		must(os.Chmod(filepath.Join(dir, name), mode))
	}
	packed := archived(t, tar.Header{Name: "in/f", Typeflag: tar.TypeReg}, tar.Header{Name: "in/g", Typeflag: tar.TypeSymlink, Linkname: "f"})
	must(os.WriteFile(filepath.Join(dir, "t.tar"), packed, 0o600))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(packed)
	must(errors.Join(err, z.Close()))
	must(os.WriteFile(filepath.Join(dir, "t.tgz"), zipped.Bytes(), 0o600))
	must(os.WriteFile(filepath.Join(dir, "lib.tar"), archived(t, tar.Header{Name: "lib/from-tar", Typeflag: tar.TypeReg}), 0o600))
	must(os.WriteFile(filepath.Join(dir, "odd.tar"), archived(t, tar.Header{Name: "../up", Typeflag: tar.TypeReg}, tar.Header{Name: "/root", Typeflag: tar.TypeReg}), 0o600))
	return dir
}

// archived is a tar of 5:6's files; a file's content is its name's last letter, or "x".
func archived(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		h.Uid, h.Gid, h.Mode = 5, 6, 0o644
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "x\n"
			if h.Name == "in/f" {
				text = "f\n"
			}
		}
		h.Size = int64(len(text))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
