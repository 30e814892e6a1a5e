package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// family is one metric as a scrape shows it.
type family struct {
	kind    string
	labels  map[string]bool
	buckets []string // of one series
}

func (f *family) String() string {
	labels := "-"
	if len(f.labels) > 0 {
		labels = strings.Join(slices.Sorted(maps.Keys(f.labels)), ",")
	}
	if f.kind != "histogram" {
		return labels
	}
	return labels + " buckets " + strings.Join(f.buckets, ",")
}

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:]+)(?:\{(.*)\})? \S+$`)
	label  = regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
)

// scraped reads the text format.
func scraped(t *testing.T, text string) map[string]*family {
	t.Helper()
	found := map[string]*family{}
	var now *family
	var name, first string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			var kind string
			name, kind, _ = strings.Cut(rest, " ")
			now, first = &family{kind: kind, labels: map[string]bool{}}, ""
			found[name] = now
		}
		m := sample.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(line, "#") {
			continue
		}
		bound, rest := "", ""
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] == "le" || l[1] == "quantile" {
				bound = l[2]
				continue
			}
			now.labels[l[1]] = true
			rest += l[0]
		}
		if first == "" {
			first = rest + "!"
		}
		if m[1] == name+"_bucket" && rest+"!" == first && bound != "+Inf" {
			now.buckets = append(now.buckets, bound)
		}
	}
	return found
}

// sized is a store that knows its size, as etcd's does and the one in memory not.
type sized struct{ store.Store }

func (sized) Size(context.Context) (int64, error) { return 4096, nil }

// busy makes a server do something of everything that is counted.
func busy(t *testing.T) string {
	t.Helper()
	files := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(files, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const authentication = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true}\n"
	const authorization = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]\n"
	w := startWith(t, func(c *Config) {
		c.Store = sized{c.Store}
		c.Authentication.ConfigPath, c.AuthorizationPath = write("who", authentication), write("may", authorization)
	})
	write("who", authentication+"# again\n")
	write("may", authorization+"# again\n")
	w.sources.Reload()
	w.mayConfig.Reload()
	admin := w.as("admin", "system:masters")
	must201 := func(path string, obj any) {
		t.Helper()
		if code, text := w.do(admin, "POST", path, obj, nil); code != http.StatusCreated {
			t.Fatalf("create %s: %d %s", path, code, text)
		}
	}
	ignore, none := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone
	rule := admissionregistrationv1.RuleWithOperations{Operations: []admissionregistrationv1.OperationType{"CREATE"},
		Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}
	nowhere := "https://127.0.0.1:1/"
	const registration = "/apis/admissionregistration.k8s.io/v1/"
	must201(registration+"mutatingwebhookconfigurations", &admissionregistrationv1.MutatingWebhookConfiguration{
		TypeMeta: typed("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"), ObjectMeta: metav1.ObjectMeta{Name: "down"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{Name: "down.acme.io", FailurePolicy: &ignore, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &nowhere}, Rules: []admissionregistrationv1.RuleWithOperations{rule}}}})
	must201(registration+"validatingadmissionpolicies", &admissionregistrationv1.ValidatingAdmissionPolicy{
		TypeMeta: typed("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"), ObjectMeta: metav1.ObjectMeta{Name: "bad"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{Validations: []admissionregistrationv1.Validation{{Expression: "false"}},
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: rule}}}}})
	must201(registration+"validatingadmissionpolicybindings", &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		TypeMeta: typed("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"), ObjectMeta: metav1.ObjectMeta{Name: "bad"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "bad", ValidationActions: []admissionregistrationv1.ValidationAction{"Warn"}}})
	n := 0
	create := func() {
		n++
		must201("/api/v1/namespaces/default/configmaps", &corev1.ConfigMap{TypeMeta: typed("v1", "ConfigMap"), ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", n)}})
	}
	scrape := func() string { _, text := w.do(admin, "GET", "/metrics", nil, nil); return text }
	eventually(t, "webhook and policy are asked", func() bool {
		create()
		text := scrape()
		return strings.Contains(text, `webhook_admission_duration_seconds_count{name="down.acme.io"`) && strings.Contains(text, "policy_check_total{")
	})
	w.do(admin, "GET", "/api/v1/endpoints", nil, nil)
	local := w.Local(identity.Identity{Name: "someone", Groups: []string{identity.Masters}})
	_, err := local.List(t.Context(), target.Of(corev1.SchemeGroupVersion.WithResource("nodes"), ""), metav1.ListOptions{})
	must(t, err)
	w.live(admin)
	w.do(admin, "GET", "/livez", nil, nil)
	w.do(w.as(""), "GET", "/api", nil, nil)
	w.do(w.as("alice"), "GET", "/api/v1/pods", nil, nil)
	w.do(admin, "GET", "/api/v1/pods", nil, nil, "Impersonate-User", "bob")
	w.do(admin, "PATCH", "/api/v1/namespaces/default/configmaps/c1?fieldManager=x&dryRun=All", map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}, nil, "Content-Type", "application/apply-patch+yaml")
	nobody := int32(0)
	must201("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", &flowcontrolv1.PriorityLevelConfiguration{
		TypeMeta: typed("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration"), ObjectMeta: metav1.ObjectMeta{Name: "nothing"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: &nobody, LimitResponse: flowcontrolv1.LimitResponse{Type: "Reject"}}}})
	must201("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", &flowcontrolv1.FlowSchema{
		TypeMeta: typed("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"), ObjectMeta: metav1.ObjectMeta{Name: "crowd"},
		Spec: flowcontrolv1.FlowSchemaSpec{PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "nothing"}, MatchingPrecedence: 50,
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{Subjects: []flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "crowd"}}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}}}}})
	crowd := w.as("crowd")
	eventually(t, "the crowd is refused", func() bool {
		code, _ := w.do(crowd, "GET", "/api", nil, nil)
		return code == http.StatusTooManyRequests
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		w.url+"/api/v1/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", nil)
	must(t, err)
	watching, err := w.as("admin", "system:masters").Do(r)
	must(t, err)
	defer watching.Body.Close()
	var text string
	eventually(t, "somebody watches", func() bool {
		text = scrape()
		return strings.Contains(text, "apiserver_longrunning_requests{") && strings.Contains(text, `apiserver_watch_list_duration_seconds_count{group="",resource="configmaps"`)
	})
	return text
}

// What upstream promises to keep is here, with the same labels and buckets, or the
// list says why not; and what is here is what the other list says.
func TestMetricsAgainstUpstream(t *testing.T) {
	ours := scraped(t, busy(t))
	raw, err := os.ReadFile("testdata/metrics/upstream.txt")
	must(t, err)
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			continue
		}
		line, reason, absent := strings.Cut(line, " - not here: ")
		if !absent {
			line, reason, absent = strings.Cut(line, " not here: ")
		}
		words := strings.SplitN(line, " ", 3)
		f, here := ours[words[1]]
		switch {
		case absent && (here || reason == ""):
			t.Errorf("%s: the list says that it is not here, because %q", words[1], reason)
		case absent:
		case !here:
			t.Errorf("%s is missing", words[1])
		case f.String() != words[2]:
			t.Errorf("%s has %s, upstream's %s", words[1], f, words[2])
		}
	}
	var have strings.Builder
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			fmt.Fprintf(&have, "%s %s %s\n", ours[name].kind, name, ours[name])
		}
	}
	const file = "testdata/metrics/ours.txt"
	if *update {
		must(t, os.WriteFile(file, []byte(have.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if have.String() != string(want) {
		t.Errorf("the metrics are now\n%s", have.String())
	}
}
