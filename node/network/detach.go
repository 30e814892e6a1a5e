package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Detach disconnects a pod and frees its addresses. It succeeds when the pod
// was never attached, and when its namespace is gone. When it returns, nothing
// is translated or routed to the pod any more; the interface, which takes the
// kernel ten times as long, and the address follow by themselves. A second call
// waits for them, and tells when they failed.
func (n *Net) Detach(ctx context.Context, a Attachment) error {
	if !validID.MatchString(a.ID) {
		return fmt.Errorf("sandbox id %q is not a plain name", a.ID)
	}
	unlock := n.ids.Lock(a.ID)
	rec, err := n.load(a)
	if err != nil || len(rec.Conflist) > 0 || rec.Leaving || len(rec.IPs) == 0 {
		defer unlock()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return n.detachRecord(ctx, rec)
	}
	rec.Leaving = true
	if err := errors.Join(n.isolate(rec), n.save(rec)); err != nil {
		unlock()
		return fmt.Errorf("detach sandbox %q: %w", a.ID, err)
	}
	n.leaving.Go(func() {
		defer unlock()
		if err := n.detachRecord(context.WithoutCancel(ctx), rec); err != nil {
			n.log.Warn("pod is not wholly detached", "sandbox", a.ID, "error", err)
		}
	})
	return nil
}

// detachNow is Detach without anything left to follow.
func (n *Net) detachNow(ctx context.Context, a Attachment) error {
	defer n.ids.Lock(a.ID)()
	return n.detach(ctx, a)
}

func (n *Net) detach(ctx context.Context, a Attachment) error {
	rec, err := n.load(a)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return n.detachRecord(ctx, rec)
}

// load reads an attachment's record. One that was torn by a power cut still
// names what can be derived from the ID.
func (n *Net) load(a Attachment) (record, error) {
	var rec record
	err := atomicfile.ReadJSON(n.recordPath(a.ID), &rec)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return rec, err
	}
	n.log.Warn("network record is unreadable", "sandbox", a.ID, "error", err)
	return record{Attachment: a}, nil
}

func (n *Net) detachRecord(ctx context.Context, rec record) error {
	var err error
	if len(rec.Conflist) > 0 {
		err = n.detachCNI(ctx, rec)
	} else {
		err = n.detachBridge(rec)
	}
	if err != nil {
		return fmt.Errorf("detach sandbox %q: %w", rec.ID, err)
	}
	if err := os.Remove(n.recordPath(rec.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("detach sandbox %q: %w", rec.ID, err)
	}
	return nil
}
