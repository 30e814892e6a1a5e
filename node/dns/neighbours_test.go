package dns

import (
	"net/netip"
	"strings"
	"testing"

	wire "github.com/miekg/dns"
)

// street is Neighbours as a table: who asks, a blank, and what for.
type street map[string]string

func (s street) Names(from netip.Addr, name string) []netip.Addr {
	var all []netip.Addr
	for _, text := range strings.Fields(s[from.String()+" "+name]) {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func (s street) Called(from, ip netip.Addr) string { return s[from.String()+" "+ip.String()] }

func (s street) Confined(from netip.Addr) bool { return s[from.String()] == "confined" }

// Neighbours have names for each other that nobody else has, and for who is confined
// nobody outside is asked.
func TestNeighbours(t *testing.T) {
	s, err := New(Config{Neighbours: street{
		"10.1.0.1 db.": "10.1.0.2 fd00::2", "10.1.0.1 10.1.0.2": "db.back.", "10.1.0.1": "confined",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, name string
		kind       uint16
		want       string
	}{
		{"10.1.0.1", "DB.", wire.TypeA, "NOERROR A 10.1.0.2"},
		{"10.1.0.1", "db.", wire.TypeAAAA, "NOERROR AAAA fd00::2"},
		{"10.1.0.1", "db.", wire.TypeMX, "NOERROR"},
		{"10.1.0.1", "2.0.1.10.in-addr.arpa.", wire.TypePTR, "NOERROR PTR db.back."},
		{"10.1.0.1", "example.com.", wire.TypeA, "SERVFAIL"},
		{"10.1.0.9", "db.", wire.TypeA, "later"},
		{"10.1.0.9", "2.0.1.10.in-addr.arpa.", wire.TypePTR, "later"},
	} {
		packet, err := new(wire.Msg).SetQuestion(c.name, c.kind).Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply, later := s.answer(packet, netip.MustParseAddr(c.from), true)
		got := "later" // upstream servers are asked
		if later == nil {
			var m wire.Msg
			if err := m.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			got = wire.RcodeToString[m.Rcode]
			for _, rr := range m.Answer {
				got += " " + wire.TypeToString[rr.Header().Rrtype] + " " + strings.TrimPrefix(rr.String(), rr.Header().String())
			}
		}
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(c.want), " ") {
			t.Errorf("%s asks for %s %s: %s, want %s", c.from, c.name, wire.TypeToString[c.kind], got, c.want)
		}
	}
}
