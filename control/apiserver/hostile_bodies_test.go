package apiserver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// attack is a body that is meant to hurt, and the code that it must get.
type attack struct {
	about, path, media string
	body               []byte
	code               int
}

const (
	podsPath      = "/api/v1/namespaces/default/pods"
	mapsPath      = "/api/v1/namespaces/default/configmaps"
	revisionsPath = "/apis/apps/v1/namespaces/default/controllerrevisions"
	crdsPath      = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	protobufMedia = "application/vnd.kubernetes.protobuf"
	levels        = 100_000
	// mostMemory is what one such request may make the server allocate.
	mostMemory = 512 << 20
)

// enveloped is a message of protobuf in upstream's envelope.
func enveloped(apiVersion, kind string, message []byte) []byte {
	meta := append(part(1, []byte(apiVersion)), part(2, []byte(kind))...)
	return append([]byte("k8s\x00"), append(part(1, meta), part(2, message)...)...)
}

// part is a field of protobuf that has a length.
func part(number uint64, data []byte) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, number<<3|2), uint64(len(data))), data...)
}

// nested is a field of protobuf within itself.
func nested(number uint64, depth int) []byte {
	sizes, total := make([]int, depth), 0
	head := len(binary.AppendUvarint(nil, number<<3|2))
	for i := range sizes {
		sizes[i] = total
		total += head + len(binary.AppendUvarint(nil, uint64(total)))
	}
	out := make([]byte, 0, total)
	for i := depth - 1; i >= 0; i-- {
		out = binary.AppendUvarint(binary.AppendUvarint(out, number<<3|2), uint64(sizes[i]))
	}
	return out
}

func inCBOR(t *testing.T, v any) []byte {
	t.Helper()
	data, err := direct.Marshal(v)
	must(t, err)
	return data
}

// entries are n different keys with values.
func entries(n int, entry string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, entry, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func attacks(t *testing.T) []attack {
	name := part(1, part(1, []byte("x"))) // ObjectMeta with a name
	rawDeep := []byte(strings.Repeat("[", 5*levels) + strings.Repeat("]", 5*levels))
	revision := func(raw []byte) []byte {
		return enveloped("apps/v1", "ControllerRevision", append(append(bytes.Clone(name), part(2, part(1, raw))...), 3<<3, 1))
	}
	schema := part(4, part(1, nested(28, levels))) // a schema that is not not not …
	crd := enveloped("apiextensions.k8s.io/v1", "CustomResourceDefinition", append(bytes.Clone(name), part(2, part(7, append(part(1, []byte("v1")), schema...)))...))
	containers := func(item string, n int) string {
		return `{"metadata":{"name":"x"},"spec":{"containers":[` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}}`
	}
	deepJSON := strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := z.Write(bytes.Repeat([]byte(" "), 64<<20))
	must(t, err)
	must(t, z.Close())
	return []attack{
		{"deep JSON", mapsPath, "application/json", []byte(deepJSON), 400},
		{"deep JSON in a raw field", revisionsPath, "application/json", []byte(`{"metadata":{"name":"x"},"revision":1,"data":` + deepJSON + `}`), 400},
		{"deep YAML", mapsPath, "application/yaml", []byte(deepJSON), 400},
		{"deep YAML in blocks", mapsPath, "application/yaml", bytes.Repeat([]byte("- "), levels), 400},
		{"deep CBOR", mapsPath, "application/cbor", append(bytes.Repeat([]byte("\xa1Aa"), levels), 0xf6), 400},
		{"deep CBOR without ends", mapsPath, "application/cbor", append(bytes.Repeat([]byte("\x9f"), levels), bytes.Repeat([]byte("\xff"), levels)...), 400},
		{"deep protobuf", crdsPath, protobufMedia, crd, 400},
		{"deep JSON within protobuf", revisionsPath, protobufMedia, revision(rawDeep), 400},
		{"no JSON within protobuf", revisionsPath, protobufMedia, revision([]byte("garbage")), 400},
		{"an envelope within an envelope", mapsPath, protobufMedia, enveloped("v1", "ConfigMap", enveloped("v1", "ConfigMap", nested(1, levels))), 400},
		{"a million containers", podsPath, "application/json", []byte(containers("{}", 1_000_000)), 413},
		{"many nulls", podsPath, "application/json", []byte(containers("null", 500_000)), 413},
		{"many containers in YAML", podsPath, "application/yaml", []byte(containers("{}", 300_000)), 413},
		{"a million containers in CBOR", podsPath, "application/cbor", append([]byte("\xa1Dspec\xa1Jcontainers\x9a\x00\x0f\x42\x40"), bytes.Repeat([]byte{0xa0}, 1_000_000)...), 413},
		{"a million containers in protobuf", podsPath, protobufMedia, enveloped("v1", "Pod", append(bytes.Clone(name), part(2, bytes.Repeat([]byte{2<<3 | 2, 0}, 1_000_000))...)), 413},
		{"containers behind a group", podsPath, protobufMedia, enveloped("v1", "Pod", append(bytes.Clone(name), part(2, append([]byte{9<<3 | 3, 9<<3 | 4}, bytes.Repeat([]byte{2<<3 | 2, 0}, 1_000_000)...))...)), 413},
		{"as many faults", "/apis/apps/v1/namespaces/default/deployments", "application/json", []byte(`{"metadata":{"name":"x"},"spec":{"template":{"spec":{"volumes":[` + strings.Repeat("{},", 40_000) + `{}],"containers":[{}]}}}}`), 422},
		{"a wide map", mapsPath + "?dryRun=All", "application/json", []byte(`{"metadata":{"name":"x"},"data":{` + entries(45_000, `"k%d":"",`) + `}}`), 201},
		{"a wider one", mapsPath, "application/json", []byte(`{"metadata":{"name":"x"},"data":{` + entries(200_000, `"k%d":"",`) + `}}`), 413},
		{"duplicate keys", mapsPath + "?fieldValidation=Strict", "application/json", []byte(`{"metadata":{"name":"x","name":"y"}}`), 400},
		{"duplicate keys in YAML", mapsPath + "?fieldValidation=Strict", "application/yaml", []byte("metadata: {name: x}\nmetadata: {name: y}\n"), 400},
		{"duplicate keys in CBOR", mapsPath + "?fieldValidation=Ignore", "application/cbor", []byte("\xa2Ddata\xa0Ddata\xa0"), 400},
		{"no text in JSON", mapsPath, "application/json", []byte("{\"metadata\":{\"name\":\"\xff\"}}"), 422},
		{"no text in YAML", mapsPath, "application/yaml", []byte("metadata: {name: \"\xff\"}"), 400},
		{"no text in CBOR", mapsPath, "application/cbor", []byte("\xa1Hmetadata\xa1Dname\x61\xff"), 400},
		{"bytes for text in CBOR", mapsPath, "application/cbor", inCBOR(t, map[string]any{"metadata": map[string]any{"name": "\xff"}}), 422},
		{"no text in protobuf", mapsPath, protobufMedia, enveloped("v1", "ConfigMap", part(1, part(1, []byte("\xff")))), 422},
		{"an alias bomb", mapsPath, "application/yaml", []byte(aliases()), 400},
		{"many merges", mapsPath + "?dryRun=All", "application/yaml", []byte("a: &a {x: 1}\nmetadata: {name: x}\nb: {" + strings.Repeat("<<: *a, ", 20_000) + "}"), 201},
		{"gzip", mapsPath, "application/json", bomb.Bytes(), 400},
		{"too much", mapsPath, "application/json", bytes.Repeat([]byte(" "), 3<<20+1), 413},
	}
}

// aliases would be ten million strings.
func aliases() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 7 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 9), i)
	}
	return b.String()
}

// Whatever a body says, the answer is the client's fault, soon, in little memory;
// and nothing of it is left, neither work nor objects that nobody can read.
func TestHostileBodies(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.do(admin, http.MethodGet, mapsPath, nil, nil)
	before := runtime.NumGoroutine()
	for _, a := range attacks(t) {
		var was, is runtime.MemStats
		runtime.ReadMemStats(&was)
		begin := time.Now()
		code, text := w.send(admin, a)
		took := time.Since(begin)
		runtime.ReadMemStats(&is)
		if code != a.code {
			t.Errorf("%s: %d, want %d: %.300s", a.about, code, a.code, text)
		}
		if took > time.Second {
			t.Logf("%s took %v", a.about, took) // a busy machine is no fault
		}
		if took > 30*time.Second {
			t.Errorf("%s took %v", a.about, took)
		}
		if grown := is.TotalAlloc - was.TotalAlloc; grown > mostMemory {
			t.Errorf("%s: %d MiB were allocated", a.about, grown>>20)
		}
	}
	for _, path := range []string{podsPath, mapsPath, revisionsPath, crdsPath} {
		if code, text := w.do(admin, http.MethodGet, path, nil, nil); code != http.StatusOK {
			t.Errorf("%s: %d %.300s", path, code, text)
		}
	}
	settled(t, before)
}

// send posts a body as it is.
func (w *world) send(c *http.Client, a attack) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+a.path, bytes.NewReader(a.body))
	must(w.t, err)
	r.Header.Set("Content-Type", a.media)
	if a.about == "gzip" {
		r.Header.Set("Content-Encoding", "gzip")
	}
	answer, err := c.Do(r)
	must(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(w.t, err)
	return answer.StatusCode, string(text)
}

// settled fails the test unless there are soon about as many goroutines as before: a
// server begins one or another thing by itself, but far fewer than there are attacks.
func settled(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(patient); runtime.NumGoroutine() > before+slow/2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

// What a client can say in the first lines of a request, in the bytes themselves:
// paths that lead out, headers without end, bodies that do not come.
func TestHostileHeads(t *testing.T) {
	w := start(t)
	w.do(w.as("admin", "system:masters"), http.MethodGet, mapsPath, nil, nil)
	before := runtime.NumGoroutine()
	for _, c := range []struct {
		about, head string
		codes       []int
	}{
		{"up and out", "GET /api/v1/namespaces/../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", []int{401, 404}},
		{"up, escaped", "GET /api/v1/namespaces/default/configmaps/..%2f..%2fsecrets HTTP/1.1\r\nHost: a\r\n\r\n", []int{401}},
		{"a NUL", "GET /api/v1/pods\x00 HTTP/1.1\r\nHost: a\r\n\r\n", []int{400}},
		{"a NUL, escaped", "GET /api/v1/namespaces/default/pods/%00 HTTP/1.1\r\nHost: a\r\n\r\n", []int{401}},
		{"half an escape", "GET /api/v1/%2 HTTP/1.1\r\nHost: a\r\n\r\n", []int{400}},
		{"no host", "GET /api HTTP/1.1\r\n\r\n", []int{400}},
		{"a long path", "GET /" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\nHost: a\r\n\r\n", []int{431}},
		{"a long header", "GET /api HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", []int{431}},
		{"many headers", "GET /api HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", 400_000) + "\r\n", []int{431}},
		{"a folded header", "GET /api HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", []int{400, 401}},
		{"two lengths", "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", []int{400}},
		{"a length and chunks", "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{200, 400}},
		{"chunks without end", "POST /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab", []int{401}},
		{"a length without a body", "POST /api/v1/pods HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n", []int{401}},
		{"an expectation", "POST /api HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\n", []int{417, 401}},
		{"no version", "GET /api HTTP/9.9\r\nHost: a\r\n\r\n", []int{505}},
	} {
		if code := w.say(t, c.head); !containsCode(c.codes, code) {
			t.Errorf("%s: %d, want %v", c.about, code, c.codes)
		}
	}
	settled(t, before)
}

func containsCode(all []int, code int) bool {
	for _, c := range all {
		if c == code {
			return true
		}
	}
	return false
}

// say sends bytes over a connection of its own and gives the code of the answer.
func (w *world) say(t *testing.T, head string) int {
	t.Helper()
	conn := w.dial("http/1.1")
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patient)))
	go func() {
		_, _ = io.WriteString(conn, head) // the server may hang up on the way
		_ = conn.CloseWrite()
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Errorf("%.60q: %v", head, err)
		return 0
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// Clients that never finish their bodies hold up nobody, and are let go of when
// they leave.
func TestSlowBodies(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.do(admin, http.MethodGet, mapsPath, nil, nil)
	before := runtime.NumGoroutine()
	var idle []io.Closer
	slowly := w.as("slow", "system:masters")
	for range slow {
		reader, writer := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+mapsPath, reader)
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		go func() {
			if answer, err := slowly.Do(r); err == nil {
				_ = answer.Body.Close()
			}
		}()
		_, err = io.WriteString(writer, `{"metadata":`)
		must(t, err)
		idle = append(idle, writer)
	}
	for range 10 {
		begin := time.Now()
		if code, text := w.do(admin, http.MethodPost, mapsPath+"?dryRun=All", map[string]any{"metadata": map[string]any{"name": "x"}}, nil); code != http.StatusCreated {
			t.Fatalf("%d %s", code, text)
		}
		if took := time.Since(begin); took > time.Second {
			t.Logf("an honest request took %v", took)
		}
	}
	for _, c := range idle {
		must(t, c.Close())
	}
	slowly.CloseIdleConnections()
	settled(t, before)
}
