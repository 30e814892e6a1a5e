package apiserver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	rjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/frugal"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/all"
)

// quarry is a whole server, without a listener, that is shown what outsiders send.
type quarry struct {
	*Server
	ca    *pki.Authority
	kinds []*kinds.Kind
}

// aim starts a server with all kinds.
func aim(f *testing.F) *quarry {
	f.Helper()
	dir := f.TempDir()
	ca, err := pki.Open(dir, time.Now)
	orFail(f, err)
	key, err := pki.OpenTokenKey(filepath.Join(dir, "sa.key"))
	orFail(f, err)
	st := memory.New(memory.Config{})
	s, err := New(Config{Store: st, Kinds: all.Kinds(), Authority: ca, TokenKey: key, Log: slog.New(slog.DiscardHandler),
		Advertise: netip.MustParseAddrPort("127.0.0.1:1")})
	orFail(f, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done; _ = st.Close() })
	<-s.Ready()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}} // no pod without one
	_, err = s.own.Create(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("serviceaccounts"), "default"), account, metav1.CreateOptions{})
	orFail(f, err)
	taking := slices.DeleteFunc(slices.Clone(s.resources.Kinds()), func(k *kinds.Kind) bool {
		return k.Verbs != nil && !slices.Contains(k.Verbs, "create")
	})
	return &quarry{Server: s, ca: ca, kinds: taking}
}

func orFail(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// as is the state of a TLS connection of a client with a certificate.
func (a *quarry) as(t testing.TB, name string, groups ...string) *tls.ConnectionState {
	t.Helper()
	leaf, err := a.ca.Issue(pki.Leaf{CommonName: name, Organizations: groups, Client: true})
	orFail(t, err)
	cert, err := x509.ParseCertificate(leaf.Certificate[0])
	orFail(t, err)
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
}

// usual are objects as people write them; they are valid, which the published
// examples, full of made-up words, are not.
var usual = []string{
	"kind: Pod\nspec: {containers: [{name: c, image: i, env: [{name: A, value: b}], resources: {limits: {cpu: 100m}}, ports: [{containerPort: 80}]}]}",
	"kind: Service\nspec: {selector: {a: b}, ports: [{port: 80, targetPort: http}]}",
	"kind: PersistentVolumeClaim\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
	"kind: Deployment\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
	"kind: CronJob\nspec: {schedule: '*/5 * * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}",
	"kind: HorizontalPodAutoscaler\nspec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}",
	"kind: Ingress\nspec: {rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}",
	"kind: NetworkPolicy\nspec: {podSelector: {matchLabels: {a: b}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}",
	"kind: Role\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]",
	"kind: ValidatingAdmissionPolicy\nspec: {matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}, validations: [{expression: 'object.spec.x == 1'}]}",
	"kind: ValidatingWebhookConfiguration\nwebhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://a/b'}}]",
	"kind: CustomResourceDefinition\nspec: {group: a.b, scope: Cluster, names: {plural: a, kind: A}, versions: [{name: v1, served: true, storage: true, " +
		"schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true, x-kubernetes-validations: [{rule: 'true'}]}}}}}]}",
	"kind: ResourceClaim\nspec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, selectors: [{cel: {expression: 'device.driver == \"a\"'}}]}}]}}",
	"kind: SubjectAccessReview\nspec: {user: u, resourceAttributes: {verb: get, resource: pods}}",
	"kind: TokenReview\nspec: {token: abcdef.0123456789abcdef}",
	"kind: Secret\ntype: kubernetes.io/tls\ndata: {tls.crt: YQ==, tls.key: YQ==}",
	"kind: ControllerRevision\nrevision: 1\ndata: {a: [1, 2.5, null]}",
	"kind: ResourceQuota\nspec: {hard: {pods: '3', requests.cpu: '1', count/a.b: 1k}}",
	"kind: PersistentVolume\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /data}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}",
}

// seed adds objects to f, with the numbers of their kinds and forms.
func (a *quarry) seed(f *testing.F, add func(kind, media int, data []byte)) {
	f.Helper()
	all, count := forms(), 0
	with := func(i int, obj runtime.Object) {
		obj.GetObjectKind().SetGroupVersionKind(a.kinds[i].GVK)
		count++ // each in one form: a short run must come to more than its seeds
		data, err := runtime.Encode(all[count%len(all)].codec, obj)
		orFail(f, err)
		add(i, count%len(all), data)
	}
	examples := published(f, a.kinds)
	for _, i := range slices.Sorted(maps.Keys(examples)) {
		with(i, examples[i])
	}
	for _, text := range usual {
		first, _, _ := strings.Cut(text, "\n")
		name := strings.TrimPrefix(first, "kind: ")
		i := slices.IndexFunc(a.kinds, func(k *kinds.Kind) bool { return k.GVK.Kind == name })
		if i < 0 {
			f.Fatalf("no kind %q", name)
		}
		obj := a.kinds[i].New()
		orFail(f, yaml.Unmarshal([]byte("metadata: {name: a}\n"+text), obj))
		with(i, obj)
	}
}

// published is an example of each kind, without what only a server may set.
func published(f *testing.F, all []*kinds.Kind) map[int]runtime.Object {
	f.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	orFail(f, err)
	found := map[int]runtime.Object{}
	for i, k := range all {
		name := cmp.Or(k.GVK.Group, "core") + "." + k.GVK.Version + "." + k.GVK.Kind + ".json"
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD", name))
		if err != nil {
			continue // not all are published there
		}
		obj := k.New()
		orFail(f, json.Unmarshal(data, obj))
		for _, zero := range []func(){
			func() { obj.SetResourceVersion("") }, func() { obj.SetUID("") }, func() { obj.SetManagedFields(nil) },
			func() { obj.SetOwnerReferences(nil) }, func() { obj.SetDeletionTimestamp(nil) }, func() { obj.SetNamespace("") },
			func() { obj.SetName("a") }, func() { obj.SetFinalizers(nil) }, func() { obj.SetGenerateName("") },
		} {
			zero()
		}
		found[i] = obj
	}
	if len(found) < 50 {
		f.Fatalf("only %d published examples", len(found))
	}
	return found
}

// form is a media type, and upstream's own codec of it.
type form struct {
	media string
	codec runtime.Serializer
}

func forms() []form {
	s := scheme.Scheme()
	return []form{
		{"application/json", rjson.NewSerializerWithOptions(rjson.DefaultMetaFactory, s, s, rjson.SerializerOptions{})},
		{"application/yaml", rjson.NewSerializerWithOptions(rjson.DefaultMetaFactory, s, s, rjson.SerializerOptions{Yaml: true})},
		{"application/vnd.kubernetes.protobuf", protobuf.NewSerializer(s, s)},
		{"application/cbor", cbor.NewSerializer(s, s)},
	}
}

var strictness = []string{"Ignore", "Warn", "Strict"}

// FuzzObject: whatever is posted as an object of any kind, in any of the forms, is
// taken or is the client's fault; it costs little; and what is taken is one object,
// in whichever form it is answered.
func FuzzObject(f *testing.F) {
	a := aim(f)
	admin, all := a.as(f, "admin", "system:masters"), forms()
	a.seed(f, func(kind, media int, data []byte) { f.Add(uint8(kind), uint8(media), uint8(kind+media), data) })
	f.Add(uint8(0), uint8(1), uint8(0), []byte("a: &a [*a]\n"))
	f.Add(uint8(0), uint8(2), uint8(0), []byte("k8s\x00\n\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, kind, media, how uint8, data []byte) {
		k := a.kinds[int(kind)%len(a.kinds)]
		url := collection(k) + "?dryRun=All&fieldValidation=" + strictness[int(how)%len(strictness)]
		answer := all[int(how/3)%len(all)]
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(data))
		r.TLS = admin
		r.Header.Set("Content-Type", all[int(media)%len(all)].media)
		r.Header.Set("Accept", answer.media)
		w := httptest.NewRecorder()
		frugal.Run(t, len(data), func() { a.Handler().ServeHTTP(w, r) })
		if got := w.Header().Get("Content-Type"); got != answer.media {
			t.Fatalf("%s: asked for %q, got %q: %.300s", k.GVK.Kind, answer.media, got, w.Body)
		}
		obj := decoded(t, answer, w.Body.Bytes())
		if status, ok := obj.(*metav1.Status); ok {
			if w.Code >= 500 && !excused(status) || int(status.Code) != w.Code && w.Code >= 300 {
				t.Fatalf("%s: %d %+v", k.GVK.Kind, w.Code, status)
			}
			return
		}
		first := shown(t, obj)
		for _, form := range all {
			again, err := runtime.Encode(form.codec, obj)
			orFail(t, err)
			if is := shown(t, decoded(t, form, again)); is != first {
				t.Fatalf("%s is in %s\n%s\nand in %s\n%s", k.GVK.Kind, form.media, is, answer.media, first)
			}
		}
	})
}

// excused are upstream's answers of 5xx to what is the client's fault.
func excused(status *metav1.Status) bool {
	return strings.HasPrefix(status.Message, "resourceVersion should not be set on objects to be created")
}

// collection is where objects of a kind are created.
func collection(k *kinds.Kind) string {
	path := "/apis/" + k.GVK.Group + "/" + k.GVK.Version
	if k.GVK.Group == "" {
		path = "/api/" + k.GVK.Version
	}
	if k.Namespaced {
		path += "/namespaces/default"
	}
	return path + "/" + k.Resource
}

func decoded(t *testing.T, f form, data []byte) runtime.Object {
	t.Helper()
	obj, gvk, err := f.codec.Decode(data, nil, nil)
	if err != nil {
		t.Fatalf("an answer in %s: %v: %.300q", f.media, err, data)
	}
	obj.GetObjectKind().SetGroupVersionKind(*gvk)
	return obj
}

func shown(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	orFail(t, err)
	return string(data)
}
