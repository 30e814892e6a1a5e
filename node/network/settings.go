package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// settings remembers what the host's own network settings were before we changed
// them. They outlive our interfaces, and so have to be put back.
type settings struct {
	// Boot is when they were changed: a reboot puts them back by itself.
	Boot    string    `json:"boot"`
	Changed []setting `json:"changed"`
}

// setting is one of them, by its path below /proc/sys/net.
type setting struct{ Name, Was, Set string }

func (n *Net) settingsFile() string { return filepath.Join(n.cfg.State, "settings.json") }

func (n *Net) settings() (settings, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return settings{}, fmt.Errorf("read the boot's name: %w", err)
	}
	var s settings
	if err := atomicfile.ReadJSON(n.settingsFile(), &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("the record of network settings is unreadable", "error", err)
		s = settings{}
	}
	if now := strings.TrimSpace(string(boot)); s.Boot != now {
		s = settings{Boot: now}
	}
	return s, nil
}

// change sets one of the host's settings and remembers what it was, on disk and
// before. What has the value already is none of ours. The calling thread is in
// the host's namespace.
func (n *Net) change(name, value string) error {
	was, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
	if err != nil {
		return fmt.Errorf("read network setting %q: %w", name, err)
	}
	old := strings.TrimSpace(string(was))
	if old == value {
		return nil
	}
	s, err := n.settings()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.Changed, func(c setting) bool { return c.Name == name }) {
		s.Changed = append(s.Changed, setting{name, old, value})
		if err := atomicfile.WriteJSON(n.settingsFile(), s); err != nil {
			return fmt.Errorf("remember network setting %q: %w", name, err)
		}
	}
	return sysctl(name, value)
}

// restore puts back what change has changed, the last first, and leaves alone
// what somebody else has changed since. While another bridge is there it is
// likely that somebody else forwards too, and has found it switched on: then all
// stays. n.mu is held, and our bridge is gone.
func (n *Net) restore() error {
	s, err := n.settings()
	if err != nil || len(s.Changed) == 0 {
		return err
	}
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			n.log.Info("network settings stay, for another bridge may need them", "bridge", l.Attrs().Name)
			return nil
		}
	}
	return within(n.host, func() error {
		var errs []error
		for _, c := range slices.Backward(s.Changed) {
			now, err := os.ReadFile(filepath.Join("/proc/sys/net", c.Name))
			if errors.Is(err, fs.ErrNotExist) { // its interface is gone
				continue
			}
			if err == nil && strings.TrimSpace(string(now)) == c.Set {
				err = sysctl(c.Name, c.Was)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// forwards tells whether the host still forwards as it has to. Another that
// leaves may have switched it off.
func (n *Net) forwards() bool {
	if !n.cfg.Forwarding {
		return true
	}
	var v4 []byte
	err := within(n.host, func() (err error) {
		v4, err = os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		return err
	})
	return err == nil && strings.TrimSpace(string(v4)) == "1"
}
