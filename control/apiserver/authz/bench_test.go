package authz

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/identity"
)

// crowd is a cluster with a few hundred rules and bindings, of which some concern
// everybody and ten the robot.
func crowd(tb testing.TB) *held {
	tb.Helper()
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "clusterrole c%d\n\tget,list,watch core things%d,others%d\n\tcreate apps things%d\nclusterbinding b%d c%d user:u%d\n", i, i, i, i, i, i, i)
	}
	for i := range 100 {
		fmt.Fprintf(&text, "clusterbinding a%d c%d group:system:authenticated\n", i, i)
	}
	for i := range 10 {
		fmt.Fprintf(&text, "role x/r%d\n\tget,list core robots%d\nbinding x/r%d role/r%d sa:x/robot\n", i, i, i, i)
	}
	text.WriteString("role x/last\n\tget core configmaps,secrets,pods/log\nbinding x/last role/last sa:x/robot\n")
	d, err := parse(text.String())
	if err != nil {
		tb.Fatal(err)
	}
	return &held{Defaults: d}
}

// What one request costs: an administrator's, and a service account's whose
// permission is found last.
func BenchmarkAuthorize(b *testing.B) {
	a := New(crowd(b))
	robot := identity.ServiceAccount("x", "robot", "u")
	for name, q := range map[string]Attributes{
		"admin":   {User: identity.Identity{Name: "admin", Groups: []string{identity.Masters, identity.Authenticated}}, Verb: "get", Version: "v1", Resource: "configmaps", Namespace: "x", Name: "y"},
		"robot":   {User: robot, Verb: "get", Version: "v1", Resource: "configmaps", Namespace: "x", Name: "y"},
		"sub":     {User: robot, Verb: "get", Version: "v1", Resource: "pods", Subresource: "log", Namespace: "x", Name: "y"},
		"refused": {User: robot, Verb: "delete", Version: "v1", Resource: "configmaps", Namespace: "x", Name: "y"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if allowed, _ := a.Authorize(b.Context(), q); allowed != (name != "refused") {
					b.Fatal(allowed)
				}
			}
		})
	}
}
