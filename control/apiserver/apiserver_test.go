package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds/all"
)

// world is a server behind a real listener.
type world struct {
	*Server
	t     *testing.T // nil in benchmarks
	ca    *pki.Authority
	url   string
	audit string
	// stop ends the server and waits for it.
	stop func()
}

func start(t *testing.T) *world {
	t.Helper()
	return startWith(t, func(*Config) {})
}

// startWith starts a server with a configuration that change has changed.
func startWith(t *testing.T, change func(*Config)) *world {
	t.Helper()
	w := serve(t, change)
	w.t = t
	return w
}

func serve(t testing.TB, change func(*Config)) *world {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Open(dir, time.Now)
	must(t, err)
	key, err := pki.OpenTokenKey(filepath.Join(dir, "sa.key"))
	must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	st := memory.New(memory.Config{})
	audit := filepath.Join(dir, "audit", "audit.log")
	cfg := Config{Store: st, Kinds: all.Kinds(), Authority: ca, TokenKey: key, Listener: listener, AuditPath: audit,
		Advertise: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), 0),
		Extra: map[string]http.Handler{"/sampan/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/sampan/panic" {
				panic("on purpose")
			}
			_, _ = io.WriteString(w, "extra")
		})}}
	change(&cfg)
	s, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var failed error
	go func() { defer close(done); failed = s.Run(ctx) }()
	stop := func() { cancel(); <-done }
	t.Cleanup(func() {
		stop()
		if failed != nil {
			t.Errorf("run: %v", failed)
		}
		must(t, st.Close())
	})
	select {
	case <-s.Ready():
	case <-done:
		t.Fatal("the server ended before it was ready")
	case <-time.After(patient):
		t.Fatalf("not ready after %v", patient)
	}
	return &world{Server: s, ca: ca, url: "https://" + listener.Addr().String(), audit: audit, stop: stop}
}

// as is a client with a certificate; without a name it has none.
func (w *world) as(name string, groups ...string) *http.Client {
	w.t.Helper()
	cfg := &tls.Config{RootCAs: w.ca.Pool()}
	if name != "" {
		leaf, err := w.ca.Issue(pki.Leaf{CommonName: name, Organizations: groups, Client: true})
		must(w.t, err)
		cfg.Certificates = []tls.Certificate{*leaf}
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// do sends body as JSON, reads the answer into into and returns the code and text.
func (w *world) do(c *http.Client, method, path string, body, into any, headers ...string) (int, string) {
	w.t.Helper()
	var raw []byte
	if body != nil {
		var err error
		raw, err = json.Marshal(body)
		must(w.t, err)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, bytes.NewReader(raw))
	must(w.t, err)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	answer, err := c.Do(r)
	must(w.t, err)
	defer answer.Body.Close()
	if answer.ProtoMajor != 2 {
		w.t.Errorf("%s %s was served over %s", method, path, answer.Proto)
	}
	text, err := io.ReadAll(answer.Body)
	must(w.t, err)
	if into != nil && answer.StatusCode < 300 {
		must(w.t, json.Unmarshal(text, into))
	}
	return answer.StatusCode, string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func typed(apiVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: kind}
}

func TestJourney(t *testing.T) {
	w := start(t)
	admin, alice, nobody := w.as("admin", "system:masters"), w.as("alice"), w.as("")

	w.live(nobody)
	for path, want := range map[string]int{"/livez": 200, "/readyz?verbose": 200, "/healthz/etcd": 401, "/version": 401, "/api/v1/namespaces": 401, "/apis": 401} {
		if code, text := w.do(nobody, "GET", path, nil, nil); code != want {
			t.Errorf("nobody gets %s: %d %s", path, code, text)
		}
	}
	for path, want := range map[string]int{"/version": 200, "/api": 200, "/apis": 200, "/apis/rbac.authorization.k8s.io/v1": 200,
		"/openapi/v3": 200, "/metrics": 403, "/debug/pprof/heap": 403, "/sampan/x": 403, "/api/v1/namespaces": 403, "/readyz": 200} {
		if code, text := w.do(alice, "GET", path, nil, nil); code != want {
			t.Errorf("alice gets %s: %d %s", path, code, text)
		}
	}
	for path, want := range map[string]int{"/metrics": 200, "/debug/pprof/heap": 200, "/sampan/x": 200, "/sampan/panic": 500, "/nothing": 404, "/openid/v1/jwks": 200} {
		if code, text := w.do(admin, "GET", path, nil, nil); code != want {
			t.Errorf("admin gets %s: %d %s", path, code, text)
		}
	}
	code, text := w.do(alice, "GET", "/api/v1/namespaces/default/pods", nil, nil)
	if want := `pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"`; code != 403 || !strings.Contains(text, want) {
		t.Errorf("alice lists pods: %d %s", code, text)
	}

	binding := &rbacv1.RoleBinding{TypeMeta: typed("rbac.authorization.k8s.io/v1", "RoleBinding"), ObjectMeta: metav1.ObjectMeta{Name: "alice"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "alice"}}}
	if code, text := w.do(admin, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding, nil); code != 201 {
		t.Fatalf("bind alice: %d %s", code, text)
	}
	eventually(t, "alice may list pods", func() bool {
		code, _ := w.do(alice, "GET", "/api/v1/namespaces/default/pods", nil, nil)
		return code == 200
	})
	if code, _ := w.do(alice, "GET", "/api/v1/namespaces/default/secrets", nil, nil); code != 403 {
		t.Errorf("alice lists secrets: %d", code)
	}
	if code, text := w.do(admin, "GET", "/api/v1/namespaces/default/secrets", nil, nil, "Impersonate-User", "alice"); code != 403 || !strings.Contains(text, "alice") {
		t.Errorf("admin as alice lists secrets: %d %s", code, text)
	}
	if code, text := w.do(alice, "GET", "/api", nil, nil, "Impersonate-User", "admin", "Impersonate-Group", "system:masters"); code != 403 || !strings.Contains(text, `cannot impersonate-on:user-info:get path \"/api\"`) {
		t.Errorf("alice as admin: %d %s", code, text)
	}
	for _, name := range []string{self.Name, "system:kube-scheduler"} {
		if code, text := w.do(admin, "GET", "/api/v1/namespaces/default/secrets/borrowed", nil, nil, "Impersonate-User", name, "Impersonate-Group", "system:masters"); code != 404 {
			t.Errorf("admin as %s: %d %s", name, code, text)
		}
	}
	if code, text := w.do(admin, "GET", "/metrics", nil, nil, "Impersonate-User", "system:anonymous"); code != 403 {
		t.Errorf("admin as nobody gets /metrics: %d %s", code, text)
	}
	w.stop() // what was still on its way to the file is written
	audit, err := os.ReadFile(w.audit)
	must(t, err)
	if !strings.Contains(string(audit), `"username":"admin"`) || !strings.Contains(string(audit), `"impersonatedUser":{"username":"alice"`) ||
		!strings.Contains(string(audit), `"authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"}`) {
		t.Errorf("audit log: %s", audit)
	}
	if n := strings.Count(string(audit), `"name":"borrowed"`); n != 2 {
		t.Errorf("%d of 2 requests under a borrowed name are in the audit log: %s", n, audit)
	}
}

// live waits until the server says that it has started whole, which it does once
// its own groups are registered.
func (w *world) live(c *http.Client) {
	w.t.Helper()
	eventually(w.t, "the server lives", func() bool {
		code, _ := w.do(c, "GET", "/readyz", nil, nil)
		return code == 200
	})
}

// patient is how long a test waits for what takes a moment, unless the machine is
// busy with something else.
const patient = time.Minute

// eventually waits for a thing that the server does a moment later.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, patient)
		}
	}
}

func TestFirstObjects(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	var svc corev1.Service
	if code, text := w.do(admin, "GET", "/api/v1/namespaces/default/services/kubernetes", nil, &svc); code != 200 || svc.Spec.ClusterIP != "10.96.0.1" || svc.Spec.IPFamilies[0] != corev1.IPv4Protocol {
		t.Errorf("service kubernetes: %d %s", code, text)
	}
	for path, want := range map[string]string{
		"/api/v1/namespaces/default/endpoints/kubernetes":                              "192.0.2.7",
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes":       "192.0.2.7",
		"/api/v1/namespaces/kube-node-lease":                                           "kube-node-lease",
		"/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical":              "2000001000",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/edit":                         "pods/exec",
		"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin":         "system:masters",
		"/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication": "BEGIN CERTIFICATE",
	} {
		if code, text := w.do(admin, "GET", path, nil, nil); code != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if err := w.bootstrap(t.Context()); err != nil {
		t.Errorf("a second start: %v", err)
	}
}

// A role that is labelled for it becomes part of the role that gathers it.
func TestAggregation(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	role := &rbacv1.ClusterRole{TypeMeta: typed("rbac.authorization.k8s.io/v1", "ClusterRole"),
		ObjectMeta: metav1.ObjectMeta{Name: "boats", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"sea.example"}, Resources: []string{"boats"}}}}
	if code, text := w.do(admin, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role, nil); code != 201 {
		t.Fatalf("create role: %d %s", code, text)
	}
	eventually(t, "view, edit and admin have the rule", func() bool {
		for _, name := range []string{"view", "edit", "admin"} {
			if _, text := w.do(admin, "GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/"+name, nil, nil); !strings.Contains(text, "sea.example") {
				return false
			}
		}
		return true
	})
}

// A pod's whole way in: its account, its token, and what the token may do.
func TestPodAndToken(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	account := &corev1.ServiceAccount{TypeMeta: typed("v1", "ServiceAccount"), ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if code, text := w.do(admin, "POST", "/api/v1/namespaces/default/serviceaccounts", account, nil); code != 201 {
		t.Fatalf("create account: %d %s", code, text)
	}
	pod := &corev1.Pod{TypeMeta: typed("v1", "Pod"), ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.PodSpec{PriorityClassName: "system-cluster-critical", NodeName: "n1", Containers: []corev1.Container{{Name: "a", Image: "b"}}}}
	var made corev1.Pod
	if code, text := w.do(admin, "POST", "/api/v1/namespaces/default/pods", pod, &made); code != 201 {
		t.Fatalf("create pod: %d %s", code, text)
	}
	s := made.Spec
	if s.ServiceAccountName != "default" || *s.Priority != 2000000000 || len(s.Tolerations) != 2 || len(s.Volumes) != 1 ||
		!strings.HasPrefix(s.Volumes[0].Name, "kube-api-access-") || s.Containers[0].VolumeMounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Errorf("admitted pod: %+v", s)
	}
	node := w.as("system:node:n1", "system:nodes")
	ask := func(uid string) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{TypeMeta: typed("authentication.k8s.io/v1", "TokenRequest"), Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "web", UID: made.UID}}}
	}
	var token authenticationv1.TokenRequest
	eventually(t, "a token for the node's pod", func() bool {
		code, _ := w.do(node, "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", ask(""), &token)
		return code == 201
	})
	other := w.as("system:node:n2", "system:nodes")
	if code, text := w.do(other, "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", ask(""), nil); code != 403 {
		t.Errorf("token for another node's pod: %d %s", code, text)
	}
	var self authenticationv1.SelfSubjectReview
	whoami := &authenticationv1.SelfSubjectReview{TypeMeta: typed("authentication.k8s.io/v1", "SelfSubjectReview")}
	nobody := w.as("")
	code, text := w.do(nobody, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", whoami, &self, "Authorization", "Bearer "+token.Status.Token)
	if code != 201 || self.Status.UserInfo.Username != "system:serviceaccount:default:default" {
		t.Errorf("whoami by token: %d %s", code, text)
	}
	if code, text := w.do(admin, "DELETE", "/api/v1/namespaces/default/pods/web?gracePeriodSeconds=0", nil, nil); code != 200 {
		t.Fatalf("delete pod: %d %s", code, text)
	}
	eventually(t, "the token of a pod that is gone is refused", func() bool {
		code, _ := w.do(nobody, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", whoami, nil, "Authorization", "Bearer "+token.Status.Token)
		return code == 401
	})
}

// A node reads the secrets of its own pods only, and writes itself only.
func TestNodeKeepsToItself(t *testing.T) {
	w := start(t)
	admin, node := w.as("admin", "system:masters"), w.as("system:node:n1", "system:nodes")
	create := func(path string, obj runtime.Object) {
		t.Helper()
		if code, text := w.do(admin, "POST", path, obj, nil); code != 201 {
			t.Fatalf("create in %s: %d %s", path, code, text)
		}
	}
	create("/api/v1/namespaces/default/serviceaccounts", &corev1.ServiceAccount{TypeMeta: typed("v1", "ServiceAccount"), ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	for _, name := range []string{"mine", "yours"} {
		create("/api/v1/namespaces/default/secrets", &corev1.Secret{TypeMeta: typed("v1", "Secret"), ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	create("/api/v1/namespaces/default/pods", &corev1.Pod{TypeMeta: typed("v1", "Pod"), ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "a", Image: "b"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mine"}}}}}})
	eventually(t, "it is known whose pod it is", func() bool {
		code, _ := w.do(node, "GET", "/api/v1/namespaces/default/secrets/mine", nil, nil)
		return code == 200
	})
	for path, want := range map[string]int{
		"/api/v1/namespaces/default/secrets/mine": 200, "/api/v1/namespaces/default/secrets/yours": 403, "/api/v1/namespaces/default/secrets": 403,
		"/api/v1/pods?fieldSelector=spec.nodeName%3Dn1": 200, "/api/v1/pods": 403, "/api/v1/namespaces/default/configmaps/kube-root-ca.crt": 404,
	} {
		if code, text := w.do(node, "GET", path, nil, nil); code != want {
			t.Errorf("node gets %s: %d, want %d: %s", path, code, want, text)
		}
	}
	register := func(name string, labels map[string]string) (int, string) {
		return w.do(node, "POST", "/api/v1/nodes", &corev1.Node{TypeMeta: typed("v1", "Node"), ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, nil)
	}
	if code, text := register("n2", nil); code != 403 {
		t.Errorf("node makes another: %d %s", code, text)
	}
	if code, text := register("n1", map[string]string{"node-role.kubernetes.io/control-plane": ""}); code != 403 {
		t.Errorf("node labels itself: %d %s", code, text)
	}
	code, text := register("n1", map[string]string{"kubernetes.io/hostname": "n1"})
	if code != 201 || !strings.Contains(text, "node.kubernetes.io/not-ready") {
		t.Errorf("node registers: %d %s", code, text)
	}
}

func TestAdmissionRefuses(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	pod := func() *corev1.Pod {
		return &corev1.Pod{TypeMeta: typed("v1", "Pod"), ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	}
	strange := pod()
	strange.Spec.ServiceAccountName = "nobody"
	classless := pod()
	classless.Spec.PriorityClassName = "high"
	if code, text := w.do(admin, "POST", "/api/v1/namespaces/default/serviceaccounts", &corev1.ServiceAccount{TypeMeta: typed("v1", "ServiceAccount"), ObjectMeta: metav1.ObjectMeta{Name: "default"}}, nil); code != 201 {
		t.Fatalf("create account: %d %s", code, text)
	}
	external := &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: corev1.ServiceSpec{ExternalIPs: []string{"1.2.3.4"}, Ports: []corev1.ServicePort{{Port: 80}}}}
	cases := []struct {
		method, path string
		body         any
		code         int
		want         string
	}{
		{"POST", "/api/v1/namespaces/none/pods", pod(), 404, `namespaces \"none\" not found`},
		{"POST", "/api/v1/namespaces/default/pods", strange, 403, `error looking up service account default/nobody: serviceaccount \"nobody\" not found`},
		{"POST", "/api/v1/namespaces/default/pods", classless, 403, `no PriorityClass with name high was found`},
		{"DELETE", "/api/v1/namespaces/kube-system", nil, 403, `this namespace may not be deleted`},
		{"POST", "/api/v1/namespaces/default/services", external, 403, `Use of external IPs is denied by admission control`},
	}
	for _, c := range cases {
		if code, text := w.do(admin, c.method, c.path, c.body, nil); code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, text, c.code, c.want)
		}
	}
}

// Open watches neither hold up the end nor outlive it.
func TestStopsWhileWatched(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/api/v1/namespaces?watch=true", nil)
	must(t, err)
	answer, err := admin.Do(r)
	must(t, err)
	defer answer.Body.Close()
	w.grace = 3 * patient // who is held up is held up for that long
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stop()
		_, _ = io.Copy(io.Discard, answer.Body) // ends, in order or not
	}()
	select {
	case <-stopped:
	case <-time.After(patient):
		t.Fatalf("not stopped after %v", patient)
	}
}
