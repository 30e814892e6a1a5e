// Package lease elects one of several identical components to act, on a
// coordination.k8s.io Lease that upstream's clients understand.
//
// Whether a lease has expired is judged by how long this process, on its own
// monotonic clock, has seen no change in it: other machines' clocks do not
// matter. An election is advice, not a fence: two may believe for a moment that
// they lead, so what they write must carry preconditions.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// Defaults of Config: upstream's for its own control plane.
const (
	DefaultDuration = 15 * time.Second
	DefaultDeadline = 10 * time.Second
	DefaultRetry    = 2 * time.Second
	// releaseTimeout bounds the giving up of the lease at the end.
	releaseTimeout = 2 * time.Second
)

// Config of an election.
type Config struct {
	Transport client.Transport
	// Namespace and Name say which lease; candidates for one role share them.
	Namespace, Name string
	// Identity is this candidate, unique among them: host name and a random part.
	Identity string
	// Duration is how long others wait after the last renewal they saw.
	Duration time.Duration
	// Deadline is how long the leader may fail to renew before it stops. It is
	// shorter than Duration, so that it has stopped when another starts.
	Deadline time.Duration
	// Retry is the time between renewals.
	Retry time.Duration
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Run takes part in the election until ctx ends. Each time this candidate is
// elected it calls lead, whose context ends when the lease is lost or ctx ends;
// Run waits for lead to return before it stands again. If lead returns by
// itself, Run gives up the lease and returns lead's error. At the end of ctx the
// lease is released, so that a successor need not wait.
func Run(ctx context.Context, cfg Config, lead func(context.Context) error) error {
	c, err := newCandidate(cfg)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = c.lease.Run(watching) }() // ends with its context, with nothing to say
	for ctx.Err() == nil {
		if !c.campaign(ctx) {
			break
		}
		c.log.Info("elected", "lease", c.cfg.Name, "identity", c.cfg.Identity)
		err := c.reign(ctx, lead)
		if !errors.Is(err, errLost) {
			return err
		}
		c.log.Warn("lost the lease", "lease", c.cfg.Name, "identity", c.cfg.Identity)
	}
	return context.Cause(ctx)
}

// errLost ends a leader's context.
var errLost = errors.New("lease lost")

// candidate is one taking part. Only Run's goroutine touches seen and seenAt.
type candidate struct {
	cfg    Config
	log    *slog.Logger
	lease  *informer.Informer[*coordinationv1.Lease]
	change chan struct{} // the mirror has changed

	seen   string // resourceVersion of the lease when it last changed
	seenAt time.Time
}

func newCandidate(cfg Config) (*candidate, error) {
	if cfg.Transport == nil || cfg.Name == "" || cfg.Namespace == "" || cfg.Identity == "" {
		return nil, errors.New("lease: transport, namespace, name and identity are required")
	}
	if cfg.Duration == 0 {
		cfg.Duration, cfg.Deadline, cfg.Retry = DefaultDuration, DefaultDeadline, DefaultRetry
	}
	if !(cfg.Retry > 0 && cfg.Retry < cfg.Deadline && cfg.Deadline < cfg.Duration) {
		return nil, fmt.Errorf("lease %q: want retry < deadline < duration, have %v, %v, %v", cfg.Name, cfg.Retry, cfg.Deadline, cfg.Duration)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &candidate{cfg: cfg, log: cfg.Log, change: make(chan struct{}, 1)}
	c.lease = informer.New(cfg.Transport, client.Leases, informer.Options{
		Namespace: cfg.Namespace, FieldSelector: "metadata.name=" + cfg.Name, Log: cfg.Log,
	})
	c.lease.Subscribe(func(informer.Event[*coordinationv1.Lease]) {
		select {
		case c.change <- struct{}{}:
		default:
		}
	})
	return c, nil
}

// campaign returns true when elected and false when ctx has ended. It sleeps
// until the lease changes or would expire.
func (c *candidate) campaign(ctx context.Context) bool {
	select {
	case <-c.lease.Synced():
	case <-ctx.Done():
		return false
	}
	for {
		wait := c.remaining(time.Now())
		if wait <= 0 {
			if err := c.acquire(ctx); err == nil {
				return true
			} else if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
				c.log.Warn("cannot acquire the lease", "lease", c.cfg.Name, "err", err)
			}
			wait = c.cfg.Retry
		}
		t := time.NewTimer(wait)
		select {
		case <-c.change:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// remaining is how long the present holder must be waited for.
func (c *candidate) remaining(now time.Time) time.Duration {
	l, ok := c.lease.Get(c.cfg.Namespace, c.cfg.Name)
	if !ok {
		return 0
	}
	if l.ResourceVersion != c.seen {
		c.seen, c.seenAt = l.ResourceVersion, now
	}
	holder := deref(l.Spec.HolderIdentity)
	if holder == "" || holder == c.cfg.Identity {
		return 0
	}
	duration := c.cfg.Duration
	if l.Spec.LeaseDurationSeconds != nil {
		duration = time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	}
	return c.seenAt.Add(duration).Sub(now)
}

// acquire writes this candidate into the lease as it was last seen.
func (c *candidate) acquire(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Deadline)
	defer cancel()
	l, ok := c.lease.Get(c.cfg.Namespace, c.cfg.Name)
	if !ok {
		fresh := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.cfg.Namespace, Name: c.cfg.Name}}
		_, err := client.Leases.Create(ctx, c.cfg.Transport, c.claim(fresh))
		return err
	}
	_, err := client.Leases.Update(ctx, c.cfg.Transport, c.claim(l.DeepCopy()))
	return err
}

// claim makes l say that this candidate holds it from now on.
func (c *candidate) claim(l *coordinationv1.Lease) *coordinationv1.Lease {
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(c.cfg.Duration.Seconds())
	if deref(l.Spec.HolderIdentity) != c.cfg.Identity {
		transitions := deref(l.Spec.LeaseTransitions)
		if l.Spec.HolderIdentity != nil {
			transitions++
		}
		l.Spec.LeaseTransitions = &transitions
		l.Spec.AcquireTime = &now
		l.Spec.HolderIdentity = &c.cfg.Identity
	}
	l.Spec.LeaseDurationSeconds = &seconds
	l.Spec.RenewTime = &now
	return l
}

func deref[V any](p *V) V {
	var zero V
	if p == nil {
		return zero
	}
	return *p
}
