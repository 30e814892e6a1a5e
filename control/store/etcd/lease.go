package etcd

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// leaseShare is for how long a lease takes in new keys, at most: with one
	// lease a minute, an event costs no write beyond its own.
	leaseShare = time.Minute
	// leaseFraction bounds leaseShare for short lives: a twentieth of it.
	leaseFraction = 20
	// leaseKeys is how many keys one lease takes: all are deleted in one
	// transaction when it ends. Upstream's number.
	leaseKeys = 1000
	// leaseKinds bounds how many different lives are remembered at once.
	leaseKinds = 64
)

// leases hands out shared leases. A key lives at least as long as asked for, and
// at most leaseShare longer (and what etcd's clock rounds up).
type leases struct {
	client *clientv3.Client

	mu   sync.Mutex
	open map[time.Duration]*openLease // by life
}

// openLease is a lease that still takes in keys.
type openLease struct {
	id    clientv3.LeaseID
	until time.Time
	room  int
}

func newLeases(client *clientv3.Client) *leases {
	return &leases{client: client, open: make(map[time.Duration]*openLease)}
}

// get returns a lease under which a key lives for ttl from now; none for ttl 0.
func (l *leases) get(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	if ttl <= 0 {
		return clientv3.NoLease, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if lease := l.open[ttl]; lease != nil && lease.room > 0 && now.Before(lease.until) {
		lease.room--
		return lease.id, nil
	}
	// Held over the call: whoever else needs a lease of this life wants this one.
	share := min(leaseShare, ttl/leaseFraction)
	resp, err := l.client.Grant(ctx, seconds(ttl+share))
	if err != nil {
		return clientv3.NoLease, fmt.Errorf("lease for %v: %w", ttl, err)
	}
	if len(l.open) >= leaseKinds {
		clear(l.open)
	}
	l.open[ttl] = &openLease{id: resp.ID, until: now.Add(share), room: leaseKeys - 1}
	return resp.ID, nil
}

// drop forgets a lease that etcd no longer knows.
func (l *leases) drop(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ttl, lease := range l.open {
		if lease.id == id {
			delete(l.open, ttl)
		}
	}
}

// seconds rounds up: a key must not die early.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
