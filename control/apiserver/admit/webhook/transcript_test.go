package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds/all"
)

// maxTries bounds how often a request is sent until a configuration is in force,
// breath is the time between two.
const (
	maxTries = 6000
	breath   = 10 * time.Millisecond
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

// TestAdmission plays the transcripts: each is a fresh server, and webhooks behind
// TLS on loopback that do what their path says.
//
// A step is a verb, a name for the answer's parts to show, and objects as YAML:
//
//	create|update|apply|delete|get [as=user] [dry] [show=path,path] [path]
//	<yaml>
//	----
//	<what was seen>
//
// until and await, with has=text, repeat create and get until what is seen has the
// text, where _ is a space. A step that shows what a change of the configuration has
// done must be one of them, with a text that nothing but the whole change makes.
func TestAdmission(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, file) })
	}
}

// stage is a server, its webhooks and what they were asked.
type stage struct {
	t     *testing.T
	ca    *pki.Authority
	url   string
	audit string
	hooks *httptest.Server

	// last is the audit's name for the last request.
	last string

	mu    sync.Mutex
	asked []string
}

// start runs a whole API server on the memory store.
func start(t *testing.T) *stage {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Open(dir, time.Now)
	must(t, err)
	key, err := pki.OpenTokenKey(filepath.Join(dir, "sa.key"))
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	st := memory.New(memory.Config{})
	policy := filepath.Join(dir, "policy.yaml")
	must(t, os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Request}]\n"), 0o600))
	s := &stage{t: t, ca: ca, url: "https://" + listener.Addr().String(), audit: filepath.Join(dir, "audit.log")}
	server, err := apiserver.New(apiserver.Config{Store: st, Kinds: all.Kinds(), Authority: ca, TokenKey: key, Listener: listener,
		AuditPath: s.audit, AuditPolicy: policy, Advertise: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0)})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.hooks = httptest.NewUnstartedServer(http.HandlerFunc(s.hook))
	s.hooks.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.hooks.StartTLS()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		s.hooks.Close()
		must(t, st.Close())
	})
	select {
	case <-server.Ready():
	case <-time.After(time.Minute):
		t.Fatal("not ready after a minute")
	}
	return s
}

// as is a client with a certificate.
func (s *stage) as(name string, groups ...string) *http.Client {
	s.t.Helper()
	leaf, err := s.ca.Issue(pki.Leaf{CommonName: name, Organizations: groups, Client: true})
	must(s.t, err)
	tr := &http.Transport{ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.ca.Pool(), Certificates: []tls.Certificate{*leaf}}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func play(t *testing.T, file string) {
	s := start(t)
	raw, err := os.ReadFile(file)
	must(t, err)
	var out strings.Builder
	rest := string(raw)
	for {
		head, tail, ok := strings.Cut(rest, "\n----\n")
		if !ok {
			break
		}
		want, next, _ := strings.Cut(tail, "\n\n")
		rest = next
		got := strings.ReplaceAll(s.step(head), "\n\n", "\n.\n")
		fmt.Fprintf(&out, "%s\n----\n%s\n\n", head, got)
		if strings.TrimSpace(want) != got && !*update {
			t.Errorf("%s\nsaw:\n%s\nwant:\n%s", head, got, want)
		}
	}
	if strings.TrimSpace(rest) != "" {
		t.Errorf("unfinished step: %s", rest)
	}
	if *update {
		must(t, os.WriteFile(file, []byte(strings.TrimRight(out.String(), "\n")+"\n"), 0o600))
	}
}

// step does what one block says and tells what was seen.
func (s *stage) step(block string) string {
	var command string
	var lines []string
	for line := range strings.SplitSeq(strings.TrimLeft(block, "\n"), "\n") {
		switch {
		case command == "" && (strings.HasPrefix(line, "#") || line == ""):
		case command == "":
			command = line
		default:
			lines = append(lines, line)
		}
	}
	words := strings.Fields(command)
	opts := map[string]string{}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		if strings.HasPrefix(word, "/") {
			name, value = "path", word
		}
		if name == "has" {
			value = strings.ReplaceAll(value, "_", " ")
		}
		opts[name] = value
	}
	s.forget()
	text := strings.ReplaceAll(strings.Join(lines, "\n"), "HOOKS", s.hooks.URL)
	text = strings.ReplaceAll(text, "ROOTS", base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: s.hooks.Certificate().Raw})))
	if words[0] == "audit" {
		return s.noted()
	}
	return s.request(words[0], opts, text) + s.calls()
}

// request sends one object, or a bare verb.
func (s *stage) request(verb string, opts map[string]string, text string) string {
	method := map[string]string{"create": "POST", "update": "PUT", "merge": "PATCH", "delete": "DELETE", "get": "GET", "await": "GET", "until": "POST"}[verb]
	path, media, body := opts["path"], "application/json", []byte(nil)
	if text != "" {
		var err error
		body, err = yaml.YAMLToJSON([]byte(text))
		must(s.t, err)
	}
	if path == "" {
		u := &unstructured.Unstructured{}
		must(s.t, json.Unmarshal(body, &u.Object))
		path = pathOf(s.t, u, verb)
	}
	if verb == "merge" {
		media = "application/merge-patch+json"
	}
	if _, dry := opts["dry"]; dry {
		path += "?dryRun=All"
	}
	who := s.as("admin", "system:masters")
	if opts["as"] != "" {
		who = s.as(opts["as"], strings.Split(opts["groups"], ",")...)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(body))
	must(s.t, err)
	r.Header.Set("Content-Type", media)
	for range maxTries {
		answer, err := who.Do(r.Clone(s.t.Context()))
		must(s.t, err)
		raw, err := io.ReadAll(answer.Body)
		must(s.t, err)
		_ = answer.Body.Close()
		s.last = answer.Header.Get("Audit-Id")
		seen := s.tell(answer, raw, opts["show"])
		if verb != "until" && verb != "await" || strings.Contains(seen, opts["has"]) {
			return seen
		}
		// A configuration is in force a moment after it was written.
		if verb == "until" && answer.StatusCode < 300 {
			s.remove(who, path+"/"+nameOf(raw))
		}
		s.forget()
		<-time.After(breath)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return "never saw " + opts["has"]
}

func (s *stage) remove(who *http.Client, path string) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodDelete, s.url+path, nil)
	must(s.t, err)
	answer, err := who.Do(r)
	must(s.t, err)
	_ = answer.Body.Close()
}

// forget leaves out what webhooks were asked by a try that was not the last.
func (s *stage) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = nil
}

func nameOf(raw []byte) string {
	var u unstructured.Unstructured
	_ = json.Unmarshal(raw, &u.Object)
	return u.GetName()
}

// pathOf is where an object of a built-in kind lives.
func pathOf(t *testing.T, u *unstructured.Unstructured, verb string) string {
	gvk := schema.FromAPIVersionAndKind(u.GetAPIVersion(), u.GetKind())
	for _, k := range all.Kinds() {
		if k.GVK != gvk {
			continue
		}
		path := "/apis/" + u.GetAPIVersion()
		if gvk.Group == "" {
			path = "/api/v1"
		}
		if k.Namespaced {
			path += "/namespaces/default"
		}
		path += "/" + k.Resource
		if verb != "create" && verb != "until" {
			path += "/" + u.GetName()
		}
		return path
	}
	t.Fatalf("no kind %v", gvk)
	return ""
}

var volatile = regexp.MustCompile(`https://127\.0\.0\.1:\d+|[0-9a-f]{8}-[0-9a-f-]{27}|X509SHA256=[0-9a-f]+|\b(asks|made|q)-[a-z0-9]{5}\b`)

func (s *stage) tell(answer *http.Response, raw []byte, show string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", answer.StatusCode)
	var u unstructured.Unstructured
	if json.Unmarshal(raw, &u.Object) != nil {
		u.Object = map[string]any{}
	}
	if u.GetKind() == "Status" && answer.StatusCode >= 300 {
		reason, _, _ := unstructured.NestedString(u.Object, "reason")
		message, _, _ := unstructured.NestedString(u.Object, "message")
		fmt.Fprintf(&b, " %s\n%s", reason, message)
	}
	for _, path := range strings.Split(show, ",") {
		if path == "" || answer.StatusCode >= 300 {
			continue
		}
		value, _, _ := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
		text, err := json.Marshal(value)
		must(s.t, err)
		fmt.Fprintf(&b, "\n%s: %s", path, text)
	}
	for _, w := range answer.Header.Values("Warning") {
		fmt.Fprintf(&b, "\nwarning: %s", w)
	}
	return volatile.ReplaceAllString(b.String(), "<x>")
}

// calls are what the webhooks were asked in this step, in an order of their own
// where they are asked at once.
func (s *stage) calls() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.asked)
	var b strings.Builder
	for _, line := range s.asked {
		b.WriteString("\nasked: " + line)
	}
	return volatile.ReplaceAllString(b.String(), "<x>")
}

// noted are the audit annotations of the last request.
func (s *stage) noted() string {
	var line struct {
		AuditID     string            `json:"auditID"`
		Annotations map[string]string `json:"annotations"`
	}
	for range maxTries { // it is written after the answer
		raw, err := os.ReadFile(s.audit)
		must(s.t, err)
		for each := range strings.Lines(string(raw)) {
			if strings.HasSuffix(each, "\n") && strings.Contains(each, s.last) { // and not half written
				must(s.t, json.Unmarshal([]byte(each), &line))
			}
		}
		if line.AuditID == s.last {
			break
		}
		<-time.After(breath)
	}
	var out []string
	for key, value := range line.Annotations {
		if !strings.HasPrefix(key, "authorization.k8s.io/") {
			out = append(out, key+" = "+value)
		}
	}
	slices.Sort(out)
	return volatile.ReplaceAllString(strings.Join(out, "\n"), "<x>")
}

// own are the server's parts.
var own = regexp.MustCompile("^system:(apiserver|serviceaccount:kube-system:.*)$")

// hook answers as its path says.
func (s *stage) hook(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q := review.Request
	answer := &admissionv1.AdmissionResponse{UID: q.UID, Allowed: true}
	if own.MatchString(q.UserInfo.Username) { // the server's own, at its own time
		review.Request, review.Response = nil, answer
		_ = json.NewEncoder(w).Encode(review)
		return
	}
	s.mu.Lock()
	s.asked = append(s.asked, describe(r.URL.Path, &review))
	s.mu.Unlock()
	text, _ := strings.CutPrefix(r.URL.Path, "/")
	what, rest, _ := strings.Cut(text, "/")
	switch what {
	case "allow":
		answer.Warnings, answer.AuditAnnotations = []string{"beware"}, map[string]string{"seen": "yes"}
	case "label": // label/key/value
		key, value, _ := strings.Cut(rest, "/")
		answer.Patch = labelPatch(q.Object.Raw, key, value)
		answer.PatchType = new(admissionv1.PatchTypeJSONPatch)
	case "patch": // a patch without a type
		answer.Patch = []byte(`[{"op":"remove","path":"/metadata"}]`)
	case "break":
		answer.Patch = []byte(`[{"op":"replace","path":"/metadata","value":7}]`)
		answer.PatchType = new(admissionv1.PatchTypeJSONPatch)
	case "owners": // as an outdated webhook may, that does not know them
		answer.Patch = []byte(`[{"op":"replace","path":"/metadata/managedFields/0/operation","value":"Guess"}]`)
		answer.PatchType = new(admissionv1.PatchTypeJSONPatch)
	case "container":
		answer.Patch = []byte(`[{"op":"add","path":"/spec/initContainers","value":[{"image":"i","name":"added"}]}]`)
		answer.PatchType = new(admissionv1.PatchTypeJSONPatch)
	case "wronguid":
		answer.UID = "other"
	case "garbage":
		_, _ = io.WriteString(w, "<html>")
		return
	case "fail":
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case "hang":
		<-r.Context().Done()
		return
	case "flood":
		for i := 0; i < 1<<12; i++ {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
				return
			}
		}
		return
	default:
		answer.Allowed = false
		answer.Result = refusals[what]
	}
	review.Request, review.Response = nil, answer
	_ = json.NewEncoder(w).Encode(review)
}
