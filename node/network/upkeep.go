package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// Check says whether a pod could be attached now. What it can repair (a bridge
// or a table that somebody deleted) it repairs.
func (n *Net) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list, err := n.conflist()
	if err != nil || list != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.pools) == 0 {
		return ErrNoPodCIDR
	}
	if n.intact() {
		return nil
	}
	n.log.Warn("pod network is damaged, repairing it", "bridge", n.cfg.Bridge)
	return n.ensure()
}

// intact tells whether the bridge and the tables are there, and the host
// forwards. n.mu is held.
func (n *Net) intact() bool {
	link, err := n.nl.LinkByName(n.cfg.Bridge)
	return err == nil && link.Attrs().Index == n.bridge && n.nat.present(n.families()) && n.forwards()
}

// same tells whether the node's pod CIDRs are these already. n.mu is held.
func (n *Net) same(prefixes []netip.Prefix) bool {
	has := func(p netip.Prefix) bool {
		return slices.ContainsFunc(n.pools, func(have *pool) bool { return have.prefix == p.Masked() })
	}
	return len(n.pools) > 0 && len(prefixes) == len(n.pools) && !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return !has(p) })
}

// Reconcile detaches every attachment whose ID is not live and frees every
// address that no attachment holds. Call it once at start, before pods are
// attached.
func (n *Net) Reconcile(ctx context.Context, live []string) error {
	keep := make(map[string]bool, len(live))
	for _, id := range live {
		keep[id] = true
	}
	records, err := n.records()
	if err != nil {
		return err
	}
	leaked := slices.DeleteFunc(records, func(rec record) bool { return keep[rec.ID] })
	for _, rec := range leaked {
		n.log.Info("freeing a leaked network attachment", "sandbox", rec.ID, "ips", rec.IPs)
	}
	errs := []error{n.detachAll(ctx, leaked)}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pools {
		errs = append(errs, p.releaseExcept(keep))
	}
	return errors.Join(errs...)
}

// Cleanup removes everything: attachments, bridge, tables, state; and puts the
// host's settings back to what they were.
func (n *Net) Cleanup(ctx context.Context) error {
	records, err := n.records()
	errs := []error{err, n.detachAll(ctx, records)}
	n.mu.Lock()
	defer n.mu.Unlock()
	errs = append(errs, n.removeBridge(), n.nat.remove())
	if errors.Join(errs...) == nil {
		errs = append(errs, n.restore())
	}
	n.pools = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up the pod network: %w", err)
	}
	return os.RemoveAll(n.cfg.State)
}

// detachAtOnce is how many attachments are undone at a time: most of it is waiting for
// the kernel, which deletes many interfaces as quickly as one.
const detachAtOnce = 64

// detachAll detaches what the records tell of.
func (n *Net) detachAll(ctx context.Context, records []record) error {
	slots, errs := make(chan struct{}, detachAtOnce), make([]error, len(records))
	var all sync.WaitGroup
	for i, rec := range records {
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = n.detachNow(ctx, rec.Attachment)
			<-slots
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
