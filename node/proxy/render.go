package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set names one of a table's sets and maps.
type set uint8

// The sets and maps that follow the services. Keys are concatenations; each
// part is padded to four bytes.
const (
	// service: protocol . address . port -> the chain that serves it.
	setService set = iota
	// outside: as service, asked before it for what comes from outside.
	setOutside
	// node-port: protocol . port -> chain, for any address of the node.
	setNodePort
	// node-port-outside: as node-port, asked before it.
	setNodePortOutside
	// endpoint: protocol . address . port . index -> address . port.
	setEndpoint
	// member: protocol . address . port . endpoint's address . port.
	setMember
	// masquerade: protocol . address . port.
	setMasquerade
	// masquerade-node-port: protocol . port.
	setMasqueradeNodePort
	// hairpin: address . same address, of each endpoint that may be on this node.
	setHairpin
	// cluster-ip: address.
	setClusterIP
	// guarded: protocol . address . port with limited sources.
	setGuarded
	// allowed: protocol . address . port . source prefix.
	setAllowed
	numSets
)

// slot is the place of an element in a table: one value at most.
type slot struct {
	family uint8
	set    set
	key    string
}

// element is a slot and its value: a chain's name in verdict maps, an address
// and port in setEndpoint, the end of a range in setAllowed.
type element struct {
	slot
	value string
}

// outsideIndex is the first index of the endpoints of an outside front.
const outsideIndex = maxEndpoints

// chain picks one of n endpoints. There is one for each number of endpoints,
// not for each service: the endpoint map is keyed by the service's address.
type chain struct {
	node    bool // the service is reached by a node port
	outside bool // endpoints are counted from outsideIndex
	n       int
	sticky  time.Duration
}

// Chains without a number.
const (
	chainReject      = "reject"
	chainDrop        = "drop"
	chainPostrouting = "postrouting"
)

func (c chain) String() string {
	word := "pick"
	if c.outside {
		word = "outside"
	}
	at := "address"
	if c.node {
		at = "node"
	}
	name := fmt.Sprintf("%s-%s-%d", word, at, c.n)
	if c.sticky > 0 {
		name += fmt.Sprintf("-sticky-%d", c.sticky/time.Second)
	}
	return name
}

// parseChain is String's reverse.
func parseChain(name string) (c chain, ok bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 && len(parts) != 5 {
		return c, false
	}
	c.outside, c.node = parts[0] == "outside", parts[1] == "node"
	c.n, _ = strconv.Atoi(parts[2])
	if len(parts) == 5 {
		seconds, _ := strconv.Atoi(parts[4])
		c.sticky = time.Duration(seconds) * time.Second
	}
	return c, c.n > 0 && c.String() == name
}

// render is what a front adds to the family's table.
func render(f front, b backing, s *site) []element {
	r := renderer{family: familyOf(f.to.Addr())}
	port := portKey(f.proto, f.to.Port())
	full := fullKey(f)
	if f.place.node() {
		r.add(pick(f.place.outside(), setNodePortOutside, setNodePort), port, target(f, b))
	} else {
		r.add(pick(f.place.outside(), setOutside, setService), full, target(f, b))
	}
	if b.clusterIP {
		r.add(setClusterIP, string(f.to.Addr().AsSlice()), "")
	}
	for _, source := range b.sources {
		r.add(setGuarded, full, "")
		r.add(setAllowed, full+string(source.Addr().AsSlice()), full+string(lastAddr(source).AsSlice()))
	}
	if len(b.endpoints) > 0 && b.masquerade {
		if f.place.node() {
			r.add(setMasqueradeNodePort, port, "")
		} else {
			r.add(setMasquerade, full, "")
		}
	}
	r.endpoints(f, b, full, s)
	return r.out
}

type renderer struct {
	family uint8
	out    []element
}

func (r *renderer) add(in set, key, value string) {
	r.out = append(r.out, element{slot{r.family, in, key}, value})
}

func (r *renderer) endpoints(f front, b backing, full string, s *site) {
	index := 0
	if f.place.outside() {
		index = outsideIndex
	}
	for i, to := range b.endpoints {
		value := string(to.Addr().AsSlice()) + pad(to.Port())
		r.add(setEndpoint, full+string(binary.NativeEndian.AppendUint32(nil, uint32(index+i))), value)
		if b.sticky > 0 {
			r.add(setMember, full+value, "")
		}
		if s.pod(to.Addr()) {
			r.add(setHairpin, string(to.Addr().AsSlice())+string(to.Addr().AsSlice()), "")
		}
	}
}

func target(f front, b backing) string {
	switch {
	case len(b.endpoints) > 0:
		return chain{f.place.node(), f.place.outside(), len(b.endpoints), b.sticky}.String()
	case b.drop:
		return chainDrop
	}
	return chainReject
}

func pick(cond bool, yes, no set) set {
	if cond {
		return yes
	}
	return no
}

func fullKey(f front) string {
	return string([]byte{f.proto, 0, 0, 0}) + string(f.to.Addr().AsSlice()) + pad(f.to.Port())
}

func portKey(proto uint8, port uint16) string {
	return string([]byte{proto, 0, 0, 0}) + pad(port)
}

func pad(port uint16) string {
	return string(append(binary.BigEndian.AppendUint16(nil, port), 0, 0))
}

// lastAddr is the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := slices.Clone(p.Masked().Addr().AsSlice())
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip
}
