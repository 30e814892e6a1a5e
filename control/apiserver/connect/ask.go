package connect

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Ask gets a document of a node's own, as "/metrics/resource", with the server's
// certificate. The caller closes it; it ends with ctx.
func (c *Connector) Ask(ctx context.Context, name, path string) (io.ReadCloser, error) {
	n, err := c.find(ctx, name)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url(path, nil).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask node %q for %q: %w", name, path, err)
	}
	answer, err := c.transport(n).RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("ask node %q for %q: %w", name, path, err)
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("ask node %q for %q: status %d", name, path, answer.StatusCode)
	}
	return answer.Body, nil
}
