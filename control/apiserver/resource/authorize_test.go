package resource_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// silent is an authorizer that cannot find out before the request's time has passed.
type silent struct{}

func (silent) Authorize(context.Context, resource.Access) (bool, string, error) {
	return false, "", fmt.Errorf("look up roles: %w", context.DeadlineExceeded)
}

// Who could not be judged in time was not refused: a component takes 403 for an answer.
func TestNobodyJudgedInTime(t *testing.T) {
	s := serve(t, func(c *resource.Config) { c.Authorizer = silent{} })
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/default/configmaps/a", nil))
	if answer.Code != http.StatusGatewayTimeout {
		t.Errorf("%d: %s", answer.Code, answer.Body)
	}
}
