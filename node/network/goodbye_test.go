package network

import "testing"

// TestTogether: interfaces that leave at once are one deletion, which takes along
// nobody else's, and neither minds one that has gone already.
func TestTogether(t *testing.T) {
	w := newWorld(t)
	stays, ips := w.pod("stays")
	w.whoami(stays, 80)
	var leave []goodbye
	for _, id := range []string{"one", "two", "three"} {
		w.pod(id)
		link, err := w.net.nl.LinkByName(vethName(id))
		w.must(err)
		leave = append(leave, goodbye{index: link.Attrs().Index})
	}
	w.must(w.net.unlink(vethName("three")))
	for range 2 { // the second time none of them is there
		if !w.net.unlinkTogether(leave) {
			t.Error("they do not go together")
		}
	}
	for _, id := range []string{"one", "two", "three"} {
		if _, err := w.net.nl.LinkByName(vethName(id)); !gone(err) {
			t.Errorf("interface of %q: %v, want none", id, err)
		}
	}
	if got := w.seen(w.host, ips[0], 80); got == "" {
		t.Error("the one that stays does not answer")
	}
}
