package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Answer gives the node addresses that it answers at, as Config.Local does on a bridge
// of ours: they go to its loopback device, where pods of any engine's network reach
// them. The file at record names them meanwhile, so that a later Answer, or Unanswer,
// takes away those of a process that was killed. The function that is returned takes
// them away again.
func Answer(record string, addresses []netip.Addr) (func() error, error) {
	remove := func() error { return Unanswer(record) }
	if err := remove(); err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback device: %w", err)
	}
	text := make([]string, len(addresses))
	for i, ip := range addresses {
		text[i] = ip.String()
	}
	if err := os.MkdirAll(filepath.Dir(record), 0o700); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteVolatile(record, []byte(strings.Join(text, "\n")), 0o600); err != nil {
		return nil, err
	}
	for _, ip := range addresses {
		if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())}); err != nil {
			return nil, errors.Join(fmt.Errorf("address %s of the loopback device: %w", ip, err), remove())
		}
	}
	return remove, nil
}

// Unanswer takes from the loopback device the addresses that the file at record names,
// and removes the file; without one it does nothing.
func Unanswer(record string) error {
	text, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	var all error
	for word := range strings.FieldsSeq(string(text)) {
		ip, err := netip.ParseAddr(word)
		if err != nil {
			continue // nobody else writes there; what isn't an address was never added
		}
		err = netlink.AddrDel(lo, &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			all = errors.Join(all, fmt.Errorf("remove address %s: %w", ip, err))
		}
	}
	if all != nil {
		return all
	}
	return os.Remove(record)
}
