package lease

import (
	"context"
	"errors"
	"time"

	"github.com/sampan-dev/sampan/client"
)

// reign runs lead while the lease is renewed. It returns errLost after losing
// it, or what lead returned.
func (c *candidate) reign(ctx context.Context, lead func(context.Context) error) error {
	leading, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	done := make(chan error, 1)
	go func() { done <- lead(leading) }()

	deadline := time.AfterFunc(c.cfg.Deadline, func() { lose(errLost) })
	defer deadline.Stop()
	tick := time.NewTicker(c.cfg.Retry)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if errors.Is(context.Cause(leading), errLost) {
				return errLost
			}
			c.release()
			return err
		case <-leading.Done():
			// Only the wait for lead is left.
			tick.Stop()
		case <-tick.C:
			sent := time.Now()
			switch held, err := c.renew(leading); {
			case !held:
				lose(errLost)
			case err != nil:
				c.log.Warn("cannot renew the lease", "lease", c.cfg.Name, "err", err)
			default:
				deadline.Reset(time.Until(sent.Add(c.cfg.Deadline)))
			}
		}
		if leading.Err() != nil {
			return c.finish(ctx, done)
		}
	}
}

// finish waits for lead to return and gives the lease up if it is still ours.
func (c *candidate) finish(ctx context.Context, done <-chan error) error {
	err := <-done
	if ctx.Err() == nil {
		return errLost
	}
	c.release()
	return err
}

// renew extends the lease. held is false when somebody else has it.
func (c *candidate) renew(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Deadline)
	defer cancel()
	l, err := client.Leases.Get(ctx, c.cfg.Transport, c.cfg.Namespace, c.cfg.Name)
	if err != nil {
		return true, err
	}
	if deref(l.Spec.HolderIdentity) != c.cfg.Identity {
		return false, nil
	}
	_, err = client.Leases.Update(ctx, c.cfg.Transport, c.claim(l.DeepCopy()))
	return true, err
}

// release gives the lease up so that a successor need not wait for it to expire.
func (c *candidate) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	l, err := client.Leases.Get(ctx, c.cfg.Transport, c.cfg.Namespace, c.cfg.Name)
	if err != nil || deref(l.Spec.HolderIdentity) != c.cfg.Identity {
		return
	}
	l = c.claim(l.DeepCopy())
	nobody, second := "", int32(1)
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &nobody, &second
	if _, err := client.Leases.Update(ctx, c.cfg.Transport, l); err != nil {
		c.log.Debug("cannot release the lease", "lease", c.cfg.Name, "err", err)
	}
}
