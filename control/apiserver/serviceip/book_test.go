package serviceip

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/store/memory"
)

// Servers that share a store never give one port twice, and all ports are given.
func TestServersShareTheBook(t *testing.T) {
	const servers, first, last = 4, 30000, 30063
	book := memory.New(memory.Config{})
	t.Cleanup(func() { _ = book.Close() })
	shared := newShelf(nil)
	var mu sync.Mutex
	given := map[int32]int{}
	var wg sync.WaitGroup
	for range servers {
		a, err := New(Config{Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/20")}, FirstPort: first, LastPort: last,
			List: func(context.Context) ([]*corev1.Service, error) { return nil, nil }, Objects: shared, Book: book})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range (last - first + 1) / servers / 2 {
				s := svc(func(s *corev1.ServiceSpec) {
					s.Type = corev1.ServiceTypeNodePort
					s.Ports = append(s.Ports, corev1.ServicePort{Name: "more", Port: 81, Protocol: corev1.ProtocolTCP})
				})
				finish, err := a.BeginCreate(t.Context(), s, false)
				if err != nil {
					t.Error(err)
					return
				}
				finish(true)
				mu.Lock()
				for _, p := range s.Spec.Ports {
					given[p.NodePort]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for port, n := range given {
		if n != 1 || port < first || port > last {
			t.Errorf("port %d was given %d times", port, n)
		}
	}
	if len(given) != last-first+1 {
		t.Errorf("%d ports were given", len(given))
	}
}

// The book is upstream's: a RangeAllocation, in the range's own bits.
func TestBookIsUpstreams(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/24")
	finish, err := a.BeginCreate(t.Context(), svc(func(s *corev1.ServiceSpec) {
		s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30009
	}), false)
	if err != nil {
		t.Fatal(err)
	}
	finish(true)
	entry, _, err := a.cfg.Book.Get(t.Context(), "/registry/ranges/servicenodeports")
	if err != nil {
		t.Fatal(err)
	}
	const want = "k8s\x00\n\x15\n\x02v1\x12\x0fRangeAllocation\x12#\n\x10\n\x00\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x0b30000-32767\x1a\x02\x02\x00\x1a\x00\"\x00"
	if string(entry.Value) != want {
		t.Errorf("the book is %q", entry.Value)
	}
}

// What the services say is true in the end; a port that nobody has is kept for a
// while, since its service may be about to be stored.
func TestRepairPorts(t *testing.T) {
	var exist []*corev1.Service
	a := newAllocator(t, nil, "10.96.0.0/24")
	a.cfg.List = func(context.Context) ([]*corev1.Service, error) { return exist, nil }
	repair := func(want int) {
		t.Helper()
		if err := a.RepairPorts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := takenPorts(t, a); got != want {
			t.Errorf("%d ports are taken, want %d", got, want)
		}
	}
	repair(0)
	if _, err := a.BeginCreate(t.Context(), svc(func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }), false); err != nil {
		t.Fatal(err) // and it is never heard of again
	}
	exist = append(exist, svc(func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30007 }))
	for range keepLeaks {
		repair(2)
	}
	repair(1)
	if p, err := a.read(t.Context()); err != nil || !p.has(30007) {
		t.Errorf("the service's own port is free: %v", err)
	}
	exist = nil
	for range keepLeaks {
		repair(1)
	}
	repair(0)
}

// People's own choice is left to them as long as there is anything else.
func TestFreePortsLeaveRoomForChoice(t *testing.T) {
	a := newAllocator(t, nil, "10.96.0.0/24")
	p, err := a.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2768 {
		port, ok := p.free()
		if !ok || p.has(port) || (port < 30086) != (i >= 2768-86) {
			t.Fatalf("port %d is %d, %v", i, port, ok)
		}
		p.set(port, 1)
	}
	if port, ok := p.free(); ok {
		t.Errorf("one more: %d", port)
	}
}
