// Package class gives the cgroups of the quality-of-service classes their share
// of the CPU: all burstable pods together weigh what they request together, all
// best-effort pods as little as can be. Upstream's kubelet does the same; the
// pods' own cgroups are the engine's.
package class

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Best is the CPU shares of all best-effort pods together: the least there are.
const Best = 2

// Shares keeps the CPU shares of the classes. It is not safe for concurrent use.
type Shares struct {
	// Mount is where cgroups are mounted, /sys/fs/cgroup.
	Mount string
	// Root is the cgroup that holds kubepods.
	Root string
	// Changed is told how long a change of a cgroup took; it may be nil.
	Changed func(took time.Duration)

	written  int64
	reserved *Reserved
}

// Reserved is the memory that the pods of two classes request together.
type Reserved struct{ Guaranteed, Burstable int64 }

// Reserve keeps what pods request of memory (KEP-2570): all above a pod must keep it for
// the pod to. It writes only what has changed, and does nothing on cgroup v1, which
// can't.
func (s *Shares) Reserve(r Reserved) error {
	if !s.unified() || (s.reserved != nil && *s.reserved == r) {
		return nil
	}
	s.reserved = nil
	defer s.changed(time.Now())
	all := filepath.Join(s.Mount, s.Root, "kubepods")
	burstable := filepath.Join(all, "burstable")
	if err := os.MkdirAll(burstable, 0o755); err != nil {
		return fmt.Errorf("make the cgroup of burstable pods: %w", err)
	}
	if err := s.enable("+memory"); err != nil {
		return err
	}
	above := []string{all}
	if filepath.Clean("/"+s.Root) != "/" { // nothing is kept from the root
		above = append(above, filepath.Join(s.Mount, s.Root))
	}
	var failed []error
	give := func(dir, file string, bytes int64) {
		failed = append(failed, write(filepath.Join(dir, file), strconv.FormatInt(bytes, 10)))
	}
	for _, dir := range above {
		give(dir, "memory.min", r.Guaranteed+r.Burstable)
		give(dir, "memory.low", r.Burstable)
	}
	give(burstable, "memory.low", r.Burstable)
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("reserve memory for pods: %w", err)
	}
	s.reserved = &r
	return nil
}

// BoundsSwap reports whether the kernel bounds what a group of pods swaps out: with cgroup
// v2, unless it was built or started without (swapaccount=0, and the default of some
// distributions before Linux 6.1). Only a group that has the memory controller tells.
func (s *Shares) BoundsSwap() (bool, error) {
	if !s.unified() {
		return false, nil
	}
	all := filepath.Join(s.Mount, s.Root, "kubepods")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return false, fmt.Errorf("make the cgroup of pods: %w", err)
	}
	if err := s.enable("+memory"); err != nil {
		return false, err
	}
	_, err := os.Stat(filepath.Join(all, "memory.swap.max"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Set gives the burstable pods that many CPU shares, from 2 to 262,144. It writes
// only what has changed; after an error it writes again.
func (s *Shares) Set(burstable int64) error {
	if s.written == burstable {
		return nil
	}
	s.written = 0
	defer s.changed(time.Now())
	err := errors.Join(s.give("burstable", burstable), s.give("besteffort", Best))
	if err == nil {
		s.written = burstable
	}
	return err
}

// Limits bound all pods together; zero leaves one open.
type Limits struct{ Memory, Pids, Shares int64 }

// Limit bounds what all pods together may use, whatever they ask for
// themselves: what is reserved for the system stays the system's.
func (s *Shares) Limit(l Limits) error {
	defer s.changed(time.Now())
	for _, controller := range s.controllers() {
		if err := os.MkdirAll(filepath.Join(s.Mount, controller, s.Root, "kubepods"), 0o755); err != nil {
			return fmt.Errorf("make the cgroup of pods: %w", err)
		}
	}
	if s.unified() {
		for _, group := range []string{"", s.Root} {
			if err := write(filepath.Join(s.Mount, group, "cgroup.subtree_control"), "+cpu +memory +pids"); err != nil {
				return fmt.Errorf("pass controllers on to pods: %w", err)
			}
		}
	}
	for _, b := range s.bounds(l) {
		if err := b.set(filepath.Join(s.Mount, b.controller, s.Root, "kubepods")); err != nil {
			return fmt.Errorf("bound what pods use: %w", err)
		}
	}
	return nil
}

// controllers are the directories below the mount that a group is in: of cgroup v2 it is
// the mount itself.
func (s *Shares) controllers() []string {
	if s.unified() {
		return []string{""}
	}
	return []string{"memory", "pids", "cpu"}
}

// bound is a file of a group, and what is written there.
type bound struct {
	controller, file string
	value            int64
}

// bounds are the files of those limits that are not left open.
func (s *Shares) bounds(l Limits) []bound {
	all := []bound{{"memory", "memory.limit_in_bytes", l.Memory}, {"pids", "pids.max", l.Pids}, {"cpu", "cpu.shares", l.Shares}}
	if s.unified() {
		all = []bound{{"", "memory.max", l.Memory}, {"", "pids.max", l.Pids}, {"", "cpu.weight", 0}}
		if l.Shares != 0 {
			all[2].value = weight(l.Shares)
		}
	}
	return slices.DeleteFunc(all, func(b bound) bool { return b.value == 0 })
}

func (b bound) set(dir string) error {
	return write(filepath.Join(dir, b.file), strconv.FormatInt(b.value, 10))
}

func (s *Shares) changed(begin time.Time) {
	if s.Changed != nil {
		s.Changed(time.Since(begin))
	}
}

// Version is that of the machine's cgroups, 1 or 2.
func (s *Shares) Version() int {
	if s.unified() {
		return 2
	}
	return 1
}

func (s *Shares) give(class string, shares int64) error {
	file, value := "cpu.shares", shares
	dir := filepath.Join(s.Mount, "cpu", s.Root, "kubepods", class)
	if s.unified() {
		file, value = "cpu.weight", weight(shares)
		dir = filepath.Join(s.Mount, s.Root, "kubepods", class)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the cgroup of %s pods: %w", class, err)
	}
	if s.unified() {
		if err := s.enable("+cpu"); err != nil {
			return err
		}
	}
	if err := write(filepath.Join(dir, file), strconv.FormatInt(value, 10)); err != nil {
		return fmt.Errorf("CPU shares of %s pods: %w", class, err)
	}
	return nil
}

// unified reports whether the machine has cgroup v2: its root lists controllers.
func (s *Shares) unified() bool {
	_, err := os.Stat(filepath.Join(s.Mount, "cgroup.controllers"))
	return err == nil
}

// enable has every group above the classes pass a controller on.
func (s *Shares) enable(controller string) error {
	for _, group := range []string{"", s.Root, filepath.Join(s.Root, "kubepods")} {
		if err := write(filepath.Join(s.Mount, group, "cgroup.subtree_control"), controller); err != nil {
			return fmt.Errorf("pass the controller %s on to pods: %w", controller[1:], err)
		}
	}
	return nil
}

func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// The ends of cgroup v1's shares and of cgroup v2's weight.
const (
	minShares, maxShares = 2, 262_144
	minWeight, maxWeight = 1, 10_000
)

// weight is the cgroup v2 weight of so many shares, on the curve that container
// engines use for the pods beside the classes: it meets both ends, and 1024
// shares are a weight of 100.
func weight(shares int64) int64 {
	switch {
	case shares <= minShares:
		return minWeight
	case shares >= maxShares:
		return maxWeight
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, l*(l+125)/612-7.0/34)))
}
