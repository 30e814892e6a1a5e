package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// goodbyes delete interfaces, all those at once that wait while others are being
// deleted. The kernel waits for several grace periods with each deletion, and no
// longer with that of a hundred; meanwhile it holds the lock of all interfaces.
type goodbyes struct {
	mu      sync.Mutex
	busy    bool
	waiting []goodbye
	// socket is theirs alone: others need not wait for the kernel's grace periods.
	socket sockets
}

// goodbye is one interface, and who waits for its end.
type goodbye struct {
	index int
	done  chan error
}

// unlink deletes an interface of the host's namespace; one that is not there is no
// error.
func (n *Net) unlink(name string) error {
	link, err := n.nl.LinkByName(name)
	if err != nil {
		if gone(err) {
			return nil
		}
		return fmt.Errorf("find interface %q: %w", name, err)
	}
	g := goodbye{index: link.Attrs().Index, done: make(chan error, 1)}
	n.goodbyes.mu.Lock()
	n.goodbyes.waiting = append(n.goodbyes.waiting, g)
	first := !n.goodbyes.busy
	n.goodbyes.busy = true
	n.goodbyes.mu.Unlock()
	if first {
		go n.unlinkWaiting()
	}
	if err := <-g.done; err != nil && !gone(err) {
		return fmt.Errorf("delete interface %q: %w", name, err)
	}
	return nil
}

// unlinkWaiting deletes what waits until nothing does.
func (n *Net) unlinkWaiting() {
	for {
		n.goodbyes.mu.Lock()
		all := n.goodbyes.waiting
		n.goodbyes.waiting = nil
		n.goodbyes.busy = len(all) > 0
		n.goodbyes.mu.Unlock()
		if len(all) == 0 {
			return
		}
		if n.unlinkTogether(all) {
			for _, g := range all {
				g.done <- nil
			}
			continue
		}
		for _, g := range all {
			g.done <- n.goodbyes.socket.link(unix.RTM_DELLINK, unix.AF_UNSPEC, g.index)
		}
	}
}

// unlinkTogether puts interfaces into a group of their own and deletes that. It says
// whether they are gone; where it says no, some or all may be there still.
func (n *Net) unlinkTogether(all []goodbye) bool {
	if len(all) < 2 {
		return false
	}
	group := rand.Uint32() | 1<<31 // nobody counts that far
	for _, g := range all {
		err := n.nl.LinkSetGroup(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: g.index}}, int(group))
		if err != nil && !gone(err) {
			return false
		}
	}
	err := n.goodbyes.socket.link(unix.RTM_DELLINK, unix.AF_UNSPEC, 0, nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	return err == nil || errors.Is(err, unix.ENODEV) // none of them was there any more
}
