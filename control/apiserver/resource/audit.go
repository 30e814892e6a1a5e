package resource

import (
	"context"
	"time"
)

// AuditEvent is one finished request, as audit may write it down.
type AuditEvent struct {
	Request *Request
	// Code is the HTTP status that a client over the wire sees.
	Code int
	// Err is why the request was refused or failed; nil when it was served.
	Err   error
	Start time.Time
	End   time.Time
}

// audit tells the hook that r is done: with out, or with err. A watch is told
// when it begins.
func (s *Server) audit(ctx context.Context, r *Request, out *answer, err error) {
	if s.cfg.Audit == nil {
		return
	}
	e := AuditEvent{Request: r, Err: err, Start: r.Received, End: s.cfg.Now()}
	switch {
	case err != nil:
		e.Code = int(statusOf(err).Code)
	case out != nil:
		e.Code = out.code
	}
	s.cfg.Audit(ctx, e)
}
