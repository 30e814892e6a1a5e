package apiserver

import (
	"testing"
)

// Who deletes all services of the default namespace does not take the API from pods.
func TestOwnServiceComesBack(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	const services = "/api/v1/namespaces/default/services"
	uid := func() string {
		var own struct {
			Metadata struct {
				UID string `json:"uid"`
			} `json:"metadata"`
		}
		if code, _ := w.do(admin, "GET", services+"/kubernetes", nil, &own); code != 200 {
			return ""
		}
		return own.Metadata.UID
	}
	first := uid()
	if first == "" {
		t.Fatal("there is no service at the start")
	}
	if code, text := w.do(admin, "DELETE", services, nil, nil); code != 200 {
		t.Fatalf("delete: %d %s", code, text)
	}
	eventually(t, "the service again", func() bool { now := uid(); return now != "" && now != first })
}
