package webhook

import (
	"context"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
)

// patience bounds the calls for one request: those for vital ones end soon, for
// whoever sends them does not wait long.
func patience(ctx context.Context, r *match.Request) (context.Context, context.CancelFunc) {
	if r.Vital() {
		return context.WithTimeout(ctx, match.VitalWait)
	}
	return ctx, func() {}
}

// downAfter is how many calls in a row a webhook fails that is down. One that cannot
// be reached is down at once.
const downAfter = 3

// missed counts a call without an answer, and says whether the webhook is down. A
// call that the client gave up says nothing about it.
func (h *hook) missed(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return &failure{webhook: h.name, cause: cause}
	}
	misses := h.misses.Add(1)
	return &failure{webhook: h.name, cause: cause, down: misses >= downAfter || webhook.Unreachable(cause)}
}

// open says that a write goes on though h could not be asked: since its failure
// policy says so, or because a rule that is down must not stop what keeps the
// cluster alive, nor its own repair. Its own repair is all that happens in the
// namespace of the service behind it while it is down: whoever may write there could
// replace the webhook, or read its key, anyway.
func (h *hook) open(r *match.Request, down bool) bool {
	if h.ignore || r.Vital() {
		return true
	}
	return down && h.client.Service != nil && h.client.Service.Namespace == r.Namespace
}
