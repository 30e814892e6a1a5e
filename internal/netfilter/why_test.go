package netfilter

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// TestWhy: a kernel that lacks something is found out, by parts that no kernel has, and
// one that has everything isn't blamed; whoever asks leaves nothing.
func TestWhy(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a network namespace of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if err := Check(); err != nil {
		t.Skip(err)
	}
	both := []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}
	refused := fmt.Errorf("conn.Receive: %w", unix.ENOENT)
	no := info("none")
	nowhere := []part{{name: "this", module: "nft_this_%s", rule: &expr.Match{Name: "sampan-has-none", Info: &no}}, {name: "that", module: "nft_that", rule: &expr.Match{Name: "sampan-has-none", Info: &no}, nat: true}}
	for _, c := range []struct {
		err      error
		families []nftables.TableFamily
		parts    []part
		want     string
	}{
		{refused, both, nil, "conn.Receive: no such file or directory"},
		{unix.EBUSY, both, nowhere, "device or resource busy"},
		{refused, both[:1], nowhere, `this kernel's packet filter lacks "this" for ipv4, "that" for ipv4 (modprobe -a nft_this_ipv4 nft_that may give it): conn.Receive: no such file or directory`},
		{refused, both, nowhere[:1], `this kernel's packet filter lacks "this" for ipv4, "this" for ipv6 (modprobe -a nft_this_ipv4 nft_this_ipv6 may give it): conn.Receive: no such file or directory`},
	} {
		if got := why(c.err, 0, c.families, c.parts); got.Error() != c.want || !errors.Is(got, c.err) {
			t.Errorf("said %q, want %q", got, c.want)
		}
	}
	// Each question is one that the kernel understands.
	for _, family := range both {
		for _, p := range parts {
			if err := p.ask(0, family); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Errorf("asked for %q for %s it said %v", p.name, version(family), err)
			}
		}
	}
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	if tables, err := conn.ListTables(); err != nil || len(tables) > 0 {
		t.Errorf("tables are left: %v %v", tables, err)
	}
}

func info(text string) xt.Unknown { return xt.Unknown(text) }
