package serviceip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/store"
)

// The node ports that are taken are one value in the store, where upstream has it
// and as upstream writes it: a RangeAllocation, whose data are the bits of one
// large number, the first port's being the lowest. Every change is one
// compare-and-swap: of two servers that take the same port, one has to look again.

// Book is where the taken node ports are written down: a store.Store.
type Book interface {
	Get(ctx context.Context, key string) (store.Entry, int64, error)
	Create(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error)
	Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error)
}

const (
	// bookKey is where the book is in the store.
	bookKey = "/registry/ranges/servicenodeports"
	// maxSwaps bounds how often one change is tried again because others were
	// faster. Each lost round is a round somebody won.
	maxSwaps = 1000
)

var errBusy = errors.New("the node ports change too fast")

// ports is the set of taken node ports as one revision of the book has it.
type ports struct {
	first, last int32
	bits        *big.Int
	revision    int64 // 0: not written yet
}

func (p *ports) has(port int32) bool {
	return p.covers(port) && p.bits.Bit(int(port-p.first)) == 1
}

func (p *ports) set(port int32, taken uint) {
	if p.covers(port) {
		p.bits.SetBit(p.bits, int(port-p.first), taken)
	}
}

func (p *ports) covers(port int32) bool { return port >= p.first && port <= p.last }

// count is how many ports are taken.
func (p *ports) count() (n int) {
	for i := range p.bits.BitLen() {
		n += int(p.bits.Bit(i))
	}
	return n
}

// free picks a port that nobody has: at random out of those that people are not
// expected to choose themselves, then out of the rest. Upstream's division.
func (p *ports) free() (int32, bool) {
	own := p.static()
	for _, part := range [][2]int32{{p.first + own, p.last}, {p.first, p.first + own - 1}} {
		n := part[1] - part[0] + 1
		if n <= 0 {
			continue
		}
		start := rand.Int32N(n)
		for i := range n {
			if port := part[0] + (start+i)%n; !p.has(port) {
				return port, true
			}
		}
	}
	return 0, false
}

// static is how many ports at the beginning are for people's choice.
func (p *ports) static() int32 {
	size := p.last - p.first + 1
	if size <= 16 {
		return 0
	}
	return min(max(16, size/32), 128)
}

func (p *ports) rangeText() string { return fmt.Sprintf("%d-%d", p.first, p.last) }

var envelope = []byte("k8s\x00")

// encode gives the stored form.
func (p *ports) encode() ([]byte, error) {
	message := &corev1.RangeAllocation{Range: p.rangeText(), Data: p.bits.Bytes()}
	raw, err := message.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode the node ports: %w", err)
	}
	whole := &runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "RangeAllocation"}, Raw: raw}
	data, err := whole.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode the node ports: %w", err)
	}
	return append(bytes.Clone(envelope), data...), nil
}

// decode reads the stored form into p. A book of another range keeps the ports that
// both have: repairing it adds the rest.
func (p *ports) decode(data []byte) error {
	data, ok := bytes.CutPrefix(data, envelope)
	if !ok {
		return errors.New("read the node ports: not protobuf")
	}
	var whole runtime.Unknown
	var message corev1.RangeAllocation
	if err := errors.Join(whole.Unmarshal(data), message.Unmarshal(whole.Raw)); err != nil {
		return fmt.Errorf("read the node ports: %w", err)
	}
	bits := new(big.Int).SetBytes(message.Data)
	if message.Range == p.rangeText() {
		p.bits = bits
		return nil
	}
	var first, last int32
	if _, err := fmt.Sscanf(message.Range, "%d-%d", &first, &last); err != nil {
		return fmt.Errorf("read the node ports: range %q: %w", message.Range, err)
	}
	for i := range bits.BitLen() {
		if bits.Bit(i) == 1 {
			p.set(first+int32(i), 1) //nolint:gosec // a port's number
		}
	}
	return nil
}

// read gives the taken ports as the book has them; when there is no book yet, as
// the services have them.
func (a *Allocator) read(ctx context.Context) (*ports, error) {
	p := &ports{first: a.cfg.FirstPort, last: a.cfg.LastPort, bits: new(big.Int)}
	entry, _, err := a.cfg.Book.Get(ctx, bookKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		services, err := a.cfg.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the services for their ports: %w", err)
		}
		for _, s := range services {
			for port := range holdings(s).ports {
				p.set(port, 1)
			}
		}
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("read the node ports: %w", err)
	}
	p.revision = entry.Revision
	return p, p.decode(entry.Value)
}

// swap writes p in the place of what it was read from; false when somebody else was
// faster.
func (a *Allocator) swap(ctx context.Context, p *ports) (bool, error) {
	data, err := p.encode()
	if err != nil {
		return false, err
	}
	if p.revision == 0 {
		_, err = a.cfg.Book.Create(ctx, bookKey, data, 0)
	} else {
		_, err = a.cfg.Book.Update(ctx, bookKey, data, p.revision, 0)
	}
	switch {
	case errors.Is(err, store.ErrExists), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("write the node ports: %w", err)
	}
	return true, nil
}

// change lets f change the taken ports, and writes them down unless they are the
// same, f fails, or it is but a dry run. f is called again when somebody else was
// faster.
func (a *Allocator) change(ctx context.Context, dryRun bool, f func(p *ports) error) error {
	a.booking.Lock() // those of one process need not race each other
	defer a.booking.Unlock()
	for range maxSwaps {
		p, err := a.read(ctx)
		if err != nil {
			return err
		}
		before := new(big.Int).Set(p.bits)
		if err := f(p); err != nil {
			return err
		}
		if dryRun || p.bits.Cmp(before) == 0 {
			return nil
		}
		if done, err := a.swap(ctx, p); done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errBusy
}

// freePorts gives the ports in h back. What cannot be given back now is by Repair.
func (a *Allocator) freePorts(ctx context.Context, h holding) {
	if len(h.ports) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
	defer cancel()
	err := a.change(ctx, false, func(p *ports) error {
		for port := range h.ports {
			p.set(port, 0)
		}
		return nil
	})
	if err != nil {
		a.cfg.Log.Warn("give back node ports", "err", err)
	}
}

// keepLeaks is how many comparisons a port outlives its service: a service may be
// about to be stored. Upstream's.
const keepLeaks = 3

// RepairPorts makes the book of node ports agree with the services: it writes down
// those of services that are missing, and takes out those that no service has had
// for some comparisons. Two services with one port are left to people, and logged.
func (a *Allocator) RepairPorts(ctx context.Context) error {
	a.booking.Lock()
	defer a.booking.Unlock()
	for range maxSwaps {
		p, err := a.read(ctx) // first: what is taken after this makes the swap fail
		if err != nil {
			return err
		}
		services, err := a.cfg.List(ctx)
		if err != nil {
			return fmt.Errorf("list services: %w", err)
		}
		leaks, changed := a.compare(p, services)
		if p.revision != 0 && !changed {
			a.leaks = leaks
			return nil
		}
		done, err := a.swap(ctx, p)
		if err != nil {
			return err
		}
		if done {
			a.leaks = leaks
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errBusy
}

// compare changes p to what the services have, and counts the ports that seem to
// have leaked.
func (a *Allocator) compare(p *ports, services []*corev1.Service) (leaks map[int32]int, changed bool) {
	owners := map[int32]*corev1.Service{}
	for _, svc := range services {
		name := svc.Namespace + "/" + svc.Name
		for port := range holdings(svc).ports {
			other, twice := owners[port]
			switch {
			case twice:
				a.cfg.Log.Error("two services have one node port; recreate one of them", "port", port,
					"service", name, "other", other.Namespace+"/"+other.Name)
				continue
			case !p.covers(port):
				a.cfg.Log.Warn("a service's node port is not within the range; recreate the service", "port", port, "service", name, "range", p.rangeText())
			case !p.has(port):
				a.cfg.Log.Warn("a service's node port was not written down: repairing", "port", port, "service", name)
				p.set(port, 1)
				changed = true
			}
			owners[port] = svc
		}
	}
	leaks = map[int32]int{}
	for port := p.first; port <= p.last; port++ {
		if !p.has(port) || owners[port] != nil {
			continue
		}
		if leaks[port] = a.leaks[port] + 1; leaks[port] <= keepLeaks {
			continue
		}
		a.cfg.Log.Warn("a node port appears to have leaked: cleaning up", "port", port)
		delete(leaks, port)
		p.set(port, 0)
		changed = true
	}
	return leaks, changed
}
