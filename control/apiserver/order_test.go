package apiserver

import (
	"net/http"
	"strings"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

const flowPath = "/apis/flowcontrol.apiserver.k8s.io/v1/"

// The objects that order requests exist, are used, and tell what is wrong with them.
func TestOrder(t *testing.T) {
	w := start(t)
	admin, alice := w.as("admin", "system:masters"), w.as("alice")
	var schemas flowcontrolv1.FlowSchemaList
	var levels flowcontrolv1.PriorityLevelConfigurationList
	eventually(t, "the first objects", func() bool {
		w.do(admin, "GET", flowPath+"flowschemas", nil, &schemas)
		w.do(admin, "GET", flowPath+"prioritylevelconfigurations", nil, &levels)
		settled := 0
		for _, s := range schemas.Items {
			for _, c := range s.Status.Conditions {
				if c.Type == flowcontrolv1.FlowSchemaConditionDangling && c.Status == flowcontrolv1.ConditionFalse && c.Reason == "Found" {
					settled++
				}
			}
		}
		return settled == 11 && len(levels.Items) == 8
	})
	for _, s := range schemas.Items {
		if s.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] != "true" || s.Generation != 1 {
			t.Errorf("%s: %v generation %d", s.Name, s.Annotations, s.Generation)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/version", nil)
	must(t, err)
	answer, err := alice.Do(r)
	must(t, err)
	answer.Body.Close()
	byUID := map[string]string{}
	for _, s := range schemas.Items {
		byUID[string(s.UID)] = s.Name
	}
	for _, l := range levels.Items {
		byUID[string(l.UID)] = l.Name
	}
	if s, l := byUID[answer.Header.Get("X-Kubernetes-PF-FlowSchema-UID")], byUID[answer.Header.Get("X-Kubernetes-PF-PriorityLevel-UID")]; s != "global-default" || l != "global-default" {
		t.Errorf("alice's request was of schema %q, level %q", s, l)
	}

	mine := &flowcontrolv1.FlowSchema{TypeMeta: typed("flowcontrol.apiserver.k8s.io/v1", "FlowSchema")}
	mine.Name, mine.Spec.PriorityLevelConfiguration.Name = "mine", "mine"
	if code, text := w.do(admin, "POST", flowPath+"flowschemas", mine, nil); code != 201 {
		t.Fatal(code, text)
	}
	dangling := func(status flowcontrolv1.ConditionStatus) func() bool {
		return func() bool {
			var have flowcontrolv1.FlowSchema
			w.do(admin, "GET", flowPath+"flowschemas/mine", nil, &have)
			return len(have.Status.Conditions) == 1 && have.Status.Conditions[0].Status == status
		}
	}
	eventually(t, "a schema without a level is dangling", dangling(flowcontrolv1.ConditionTrue))
	level := levels.Items[0].DeepCopy()
	for _, l := range levels.Items {
		if l.Name == "system" {
			level = l.DeepCopy()
		}
	}
	level.TypeMeta = typed("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration")
	level.Name, level.UID, level.ResourceVersion, level.Annotations = "mine", "", "", nil
	if code, text := w.do(admin, "POST", flowPath+"prioritylevelconfigurations", level, nil); code != 201 {
		t.Fatal(code, text)
	}
	eventually(t, "now it has one", dangling(flowcontrolv1.ConditionFalse))

	for _, s := range schemas.Items {
		if s.Name != "catch-all" {
			continue
		}
		s.TypeMeta = mine.TypeMeta
		s.Spec.MatchingPrecedence = 9999
		if code, text := w.do(admin, "PUT", flowPath+"flowschemas/catch-all", s, nil); code != 422 || !strings.Contains(text, "spec of 'catch-all' must equal the fixed value") {
			t.Errorf("a mandatory schema was changed: %d %s", code, text)
		}
	}
	_, text := w.do(admin, "GET", "/debug/api_priority_and_fairness/dump_priority_levels", nil, nil)
	if !strings.HasPrefix(text, "PriorityLevelName,") || !strings.Contains(text, "\nmine,") || !strings.Contains(text, "\nglobal-default,") {
		t.Errorf("dump of levels:\n%s", text)
	}
	if code, _ := w.do(alice, "GET", "/debug/api_priority_and_fairness/dump_requests", nil, nil); code != 403 {
		t.Errorf("alice may look: %d", code)
	}
	_, text = w.do(admin, "GET", "/metrics", nil, nil)
	for _, want := range []string{`apiserver_flowcontrol_nominal_limit_seats{priority_level="mine"}`,
		`apiserver_flowcontrol_dispatched_requests_total{flow_schema="global-default",priority_level="global-default"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A watch holds its seat only until what it begins with is written: many of them
// leave room for others.
func TestWatchesLeaveTheirSeats(t *testing.T) {
	w := start(t)
	scheduler := w.as("system:kube-scheduler")
	const watches = 700 // more than there are seats at all
	for i := range watches {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			w.url+"/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", nil)
		must(t, err)
		answer, err := scheduler.Do(r)
		must(t, err)
		t.Cleanup(func() { _ = answer.Body.Close() })
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("watch %d: %s", i, answer.Status)
		}
	}
	if code, text := w.do(scheduler, "GET", "/api/v1/pods", nil, nil); code != http.StatusOK {
		t.Errorf("beside %d watches: %d %s", watches, code, text)
	}
}
