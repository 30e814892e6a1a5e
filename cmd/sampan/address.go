package main

import (
	"net"
	"net/netip"
)

// hostAddress is the address by which others know this machine: the source of
// packets to the world, else the first global one, else, on a machine without
// any network, the address that its pods' bridge will have.
func hostAddress(pods netip.Prefix) netip.Addr {
	// Connecting a UDP socket sends nothing; it only asks the routing table. The
	// address is one of those kept for documentation.
	if conn, err := net.Dial("udp4", "203.0.113.1:9"); err == nil {
		defer conn.Close()
		if at, ok := conn.LocalAddr().(*net.UDPAddr); ok && !at.IP.IsLoopback() {
			if addr, ok := netip.AddrFromSlice(at.IP.To4()); ok {
				return addr
			}
		}
	}
	found, _ := net.InterfaceAddrs()
	for _, f := range found {
		prefix, err := netip.ParsePrefix(f.String())
		if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() && !pods.Contains(prefix.Addr()) {
			return prefix.Addr()
		}
	}
	return gatewayOf(pods)
}

// gatewayOf is the node's address towards its pods.
func gatewayOf(pods netip.Prefix) netip.Addr { return pods.Masked().Addr().Next() }
