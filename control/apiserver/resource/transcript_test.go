package resource_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
)

var update = flag.Bool("update", false, "write what was seen into testdata")

// fixture is a server over an empty store in memory.
type fixture struct {
	*resource.Server
	store *memory.Store
}

// serve starts a server; change may alter its config.
func serve(t testing.TB, change func(*resource.Config)) *fixture {
	t.Helper()
	st := memory.New(memory.Config{})
	cfg := resource.Config{Kinds: rows(), Store: st, Authorizer: allowed{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg)
	}
	s, err := resource.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{Server: s, store: st}
}

// TestTranscripts replays testdata/*.txt: prose, an HTTP request, what was
// answered. Times are those of the bubble; UIDs and random names are masked.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { replay(t, file) })
		})
	}
}

func replay(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, func(c *resource.Config) {
		c.Authorizer = allowed{denied: map[string]bool{"eve get configmaps": true}}
	})
	var out strings.Builder
	for _, step := range split(string(data)) {
		out.WriteString(step.text)
		if step.request != "" {
			out.WriteString("----\n" + f.answer(t, step.request) + "\n")
		}
		out.WriteString("\n")
	}
	got := mask(out.String())
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(data) {
		t.Errorf("%s: got\n%s", file, difference(string(data), got))
	}
}

type step struct{ text, request string }

// split cuts a transcript into prose and requests; old answers are dropped.
func split(text string) []step {
	var steps []step
	for _, block := range strings.Split(text, "\n\n") {
		head, _, _ := strings.Cut(block, "\n----\n")
		head = strings.Trim(head, "\n")
		if head == "" {
			continue
		}
		var request []string
		for _, line := range strings.Split(head, "\n") {
			if !strings.HasPrefix(line, "#") {
				request = append(request, line)
			}
		}
		steps = append(steps, step{text: head + "\n", request: strings.Join(request, "\n")})
	}
	return steps
}

// answer performs "METHOD path", "Header: value" lines and a body.
func (f *fixture) answer(t *testing.T, text string) string {
	t.Helper()
	lines := strings.Split(text, "\n")
	synctest.Wait() // what was written has reached the caches
	method, path, _ := strings.Cut(lines[0], " ")
	if method == "sleep" {
		d, err := time.ParseDuration(path)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
		return "slept"
	}
	header := http.Header{}
	i := 1
	for ; i < len(lines); i++ {
		name, value, ok := strings.Cut(lines[i], ": ")
		if !ok || strings.ContainsAny(name, `{"[ `) || strings.ToUpper(name[:1]) != name[:1] {
			break
		}
		header.Set(name, value)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(strings.Join(lines[i:], "\n")))
	r.Header = header
	who := "alice"
	if u := header.Get("User"); u != "" {
		who = u
	}
	r = r.WithContext(identity.With(r.Context(), identity.Identity{Name: who, Groups: []string{identity.Authenticated}}))
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return show(t, w, header.Get("Show") == "fields")
}

// show prints an answer: status, the headers that matter, JSON indented.
func show(t *testing.T, w *httptest.ResponseRecorder, fields bool) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s\n", w.Code, w.Header().Get("Content-Type"))
	for _, h := range []string{"Warning", "Retry-After", "Content-Encoding"} {
		for _, v := range w.Header().Values(h) {
			fmt.Fprintf(&b, "%s: %s\n", h, v)
		}
	}
	body := w.Body.Bytes()
	if w.Header().Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		return b.String() + strings.TrimSpace(string(body))
	}
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		var v any
		if err := d.Decode(&v); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("answer is no JSON: %v: %s", err, body)
		}
		if !fields {
			hideFields(v)
		}
		outline(&b, "", v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// outline prints JSON as one line a leaf: "metadata.name: a".
func outline(b *strings.Builder, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			outline(b, strings.TrimPrefix(at+"."+k, "."), v[k])
		}
		if len(keys) == 0 {
			fmt.Fprintf(b, "%s: {}\n", at)
		}
	case []any:
		for i, e := range v {
			outline(b, fmt.Sprintf("%s[%d]", at, i), e)
		}
		if len(v) == 0 {
			fmt.Fprintf(b, "%s: []\n", at)
		}
	default:
		fmt.Fprintf(b, "%s: %s\n", at, strings.ReplaceAll(fmt.Sprint(v), "\n", `\n`)) // a blank line would be the end of the answer
	}
}

// hideFields drops metadata.managedFields everywhere.
func hideFields(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "managedFields")
		for _, e := range v {
			hideFields(e)
		}
	case []any:
		for _, e := range v {
			hideFields(e)
		}
	}
}

var (
	uids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	names = regexp.MustCompile(`(gen-)[a-z0-9]{5}\b`)
)

func mask(text string) string {
	text = uids.ReplaceAllString(text, "<uid>")
	return strings.TrimRight(names.ReplaceAllString(text, "${1}<random>"), "\n") + "\n"
}

// difference shows the first lines that differ, with what surrounds them.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(w) && i < len(g) && w[i] == g[i] {
		i++
	}
	from, wt, gt := max(0, i-5), min(len(w), i+8), min(len(g), i+8)
	return fmt.Sprintf("at line %d\n-- want\n%s\n-- got\n%s", i+1, strings.Join(w[from:wt], "\n"), strings.Join(g[from:gt], "\n"))
}
