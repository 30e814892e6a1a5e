package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/zpages"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// Who may see the configuration may see the flags; the status has a right of its own, and
// the right to all else is good for neither. On a node that is closed there are no pages.
func TestPages(t *testing.T) {
	for _, c := range []struct {
		path, right    string
		flags, closed  bool
		code           int
		want, wantless string
	}{
		{"/flagz", "configz", true, false, 200, "\nkubelet flagz\n", "\nx: y\n"},
		{"/flagz", "proxy", true, false, 403, "subresource(s)=[configz]", ""},
		{"/flagz", "configz", false, false, 404, "", "kubelet"},
		{"/flagz", "configz", true, true, 404, "", "kubelet"},
		{"/statusz", "statusz", true, false, 200, "\nPaths: /configz /debug /flagz /healthz /metrics\n", "/pods"},
		{"/statusz", "statusz", false, false, 200, "\nPaths: /configz /debug /healthz /metrics\n", "/flagz"},
		{"/statusz", "proxy", true, false, 403, "subresource(s)=[statusz]", ""},
	} {
		h := New(Config{
			Node: pods{}, NodeName: "n1", Engine: agenttest.New(), Profiled: true, Closed: c.closed,
			Pages: Pages{Of: zpages.Component{Name: "kubelet", Version: "v1.37.1", Flags: map[string]string{"a": "b"}}, Status: true, Flags: c.flags},
			Authn: func(*http.Request) (identity.Identity, bool) { return identity.Identity{Name: "ok"}, true },
			Authz: func(_ context.Context, _ identity.Identity, verb, subresource string) bool {
				return verb == "get" && subresource == c.right
			},
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if body := w.Body.String(); w.Code != c.code || !strings.Contains(body, c.want) || c.wantless != "" && strings.Contains(body, c.wantless) {
			t.Errorf("%+v: %d %s", c, w.Code, body)
		}
	}
}
