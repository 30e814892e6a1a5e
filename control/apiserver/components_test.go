package apiserver

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// left is what is told of a lease that ended after a quarter of a minute, a minute
// ago or, on a busy machine, a little more.
var left = regexp.MustCompile(`scheduler False "a" has not renewed the lease "kube-scheduler", which ended (4[5-9]s|5[0-9]s|1m[0-9]+s) ago;`)

// kubectl get cs: what is told is how the parts are when asked.
func TestComponentStatuses(t *testing.T) {
	w := startWith(t, func(c *Config) {
		c.Components = map[string]func(context.Context) error{"controller-manager": func(context.Context) error { return errors.New("on strike") }}
	})
	admin := w.as("admin", "system:masters")
	const path = "/api/v1/componentstatuses"
	status := func() string {
		t.Helper()
		var list corev1.ComponentStatusList
		if code, text := w.do(admin, "GET", path, nil, &list); code != http.StatusOK || list.ResourceVersion != "" || list.Kind != "ComponentStatusList" {
			t.Fatalf("list: %d %s", code, text)
		}
		var b strings.Builder
		for _, c := range list.Items {
			b.WriteString(c.Name + " " + string(c.Conditions[0].Status) + " " + c.Conditions[0].Message + c.Conditions[0].Error + "; ")
		}
		return b.String()
	}
	if got, want := status(), `controller-manager False on strike; etcd-0 True ok; scheduler False nobody has taken the lease "kube-scheduler"; `; got != want {
		t.Errorf("saw  %s\nwant %s", got, want)
	}
	lease := &coordinationv1.Lease{TypeMeta: typed("coordination.k8s.io/v1", "Lease"), ObjectMeta: metav1.ObjectMeta{Name: "kube-scheduler"},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: new("a"), LeaseDurationSeconds: new(int32(15)), RenewTime: &metav1.MicroTime{Time: time.Now().Add(patient)}}}
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
	if code, text := w.do(admin, "POST", leases, lease, lease); code != 201 {
		t.Fatalf("lease: %d %s", code, text)
	}
	if got := status(); !strings.Contains(got, "scheduler True ok;") {
		t.Errorf("led: %s", got)
	}
	lease.Spec.RenewTime.Time = time.Now().Add(-time.Minute)
	if code, text := w.do(admin, "PUT", leases+"/kube-scheduler", lease, nil); code != 200 {
		t.Fatalf("lease: %d %s", code, text)
	}
	if got := status(); !left.MatchString(got) {
		t.Errorf("left: %s", got)
	}
	var one corev1.ComponentStatus
	if code, text := w.do(admin, "GET", path+"/etcd-0", nil, &one); code != 200 || one.Name != "etcd-0" || one.ResourceVersion != "" || one.Kind != "ComponentStatus" {
		t.Errorf("one: %d %s", code, text)
	}
	for method, want := range map[string]int{"POST": 405, "DELETE": 405, "GET": 404} {
		at := path + "/nobody"
		if method == "POST" {
			at = path
		}
		var body any
		if method == "POST" {
			body = &one
		}
		if code, text := w.do(admin, method, at, body, nil); code != want {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
	var table metav1.Table
	w.do(admin, "GET", path, nil, &table, "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	if len(table.Rows) != 3 || len(table.ColumnDefinitions) != 4 || table.Rows[1].Cells[1] != "Healthy" || table.Rows[1].Cells[2] != "ok" {
		t.Errorf("table: %+v", table)
	}
	var resources unstructured.Unstructured
	w.do(admin, "GET", "/api/v1", nil, &resources.Object)
	text, _ := resources.MarshalJSON()
	if want := `{"kind":"ComponentStatus","name":"componentstatuses","namespaced":false,"shortNames":["cs"],"singularName":"componentstatus","verbs":["get","list"]}`; !strings.Contains(string(text), want) {
		t.Errorf("discovery has no %s", want)
	}
}
