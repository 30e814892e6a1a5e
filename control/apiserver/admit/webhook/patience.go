package webhook

import (
	"context"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
)

// patience bounds the calls for one request: those for vital ones end soon, for
// whoever sends them does not wait long.
func patience(ctx context.Context, r *match.Request) (context.Context, context.CancelFunc) {
	if r.Vital() {
		return context.WithTimeout(ctx, match.VitalWait)
	}
	return ctx, func() {}
}

// open says that a write goes on though h could not be asked: since its failure
// policy says so, or because a rule that is down must not stop what keeps the
// cluster alive, nor its own repair. Its own repair is all that happens in the
// namespace of the service behind it: whoever may write there could replace the
// webhook, or read its key, anyway.
func (h *hook) open(r *match.Request) bool {
	return h.ignore || r.Vital() || h.client.Service != nil && h.client.Service.Namespace == r.Namespace
}
