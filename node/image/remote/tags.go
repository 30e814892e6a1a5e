package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Tags are all tags of a repository, in the registry's order. The pages that it makes of
// them are asked for in turn; more than most tags are an error.
func (c *Client) Tags(ctx context.Context, repo Repository, most int) ([]string, error) {
	var tags []string
	err := c.each(repo.Registry, canResolve, func(h *host) error {
		tags = nil
		ask := request{method: http.MethodGet, path: repo.path("tags", "list"), scope: pullScope(repo), want: []int{http.StatusOK}}
		for {
			answer, err := c.do(ctx, h, ask)
			if err != nil {
				return err
			}
			raw, err := small(answer)
			if err != nil {
				return err
			}
			var page struct {
				Tags []string `json:"tags"`
			}
			if err := json.Unmarshal(raw, &page); err != nil {
				return fmt.Errorf("tags of %s: %w: %w", repo, ErrInvalid, err)
			}
			if tags = append(tags, page.Tags...); len(tags) > most {
				return fmt.Errorf("%s has more than %d tags: %w", repo, most, ErrTooLarge)
			}
			next, ok := nextPage(answer)
			if !ok || len(page.Tags) == 0 {
				return nil
			}
			if !h.owns(next) {
				return fmt.Errorf("tags of %s: the next page is on another server, %s: %w", repo, next.Host, ErrInvalid)
			}
			ask.url, ask.path = next.String(), ""
		}
	})
	return tags, err
}

// nextPage reads a Link header (RFC 8288) as the distribution specification has it:
// <URL>; rel="next".
func nextPage(answer *http.Response) (*url.URL, bool) {
	link, rest, ok := strings.Cut(strings.TrimPrefix(answer.Header.Get("Link"), "<"), ">")
	if !ok || !strings.Contains(rest, "next") || answer.Request == nil {
		return nil, false
	}
	next, err := answer.Request.URL.Parse(link)
	return next, err == nil
}
