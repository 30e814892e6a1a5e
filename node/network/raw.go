package network

import (
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// openRaw opens a socket for requests that the netlink library has no words for.
func openRaw(ns netns.NsHandle) (sockets, error) {
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return sockets{unix.NETLINK_ROUTE: {Socket: s}}, nil
}

// sockets is a socket as the library takes it.
type sockets map[int]*nl.SocketHandle

func (s sockets) close() {
	for _, one := range s {
		one.Close()
	}
}

// link makes a request about an interface of the socket's namespace; a zero index
// leaves it to the attributes which.
func (s sockets) link(what int, family, index int, attrs ...nl.NetlinkRequestData) error {
	r := nl.NewNetlinkRequest(what, unix.NLM_F_ACK)
	r.Sockets = s
	msg := nl.NewIfInfomsg(family)
	msg.Index = int32(index) //nolint:gosec // the kernel's own
	r.AddData(msg)
	for _, a := range attrs {
		r.AddData(a)
	}
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
