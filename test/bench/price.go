package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// price is what one run took.
type price struct{ wall, processor time.Duration }

// prices are the costs of programs that took turns.
type prices map[string][]price

// run runs a program and adds what it costs. more is the processor time of a daemon
// that works for it, nil for none.
func (t prices) run(ctx context.Context, name string, more func() time.Duration, argv ...string) error {
	before := time.Duration(0)
	if more != nil {
		before = more()
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	c := price{wall: time.Since(begin), processor: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if more != nil {
		c.processor += more() - before
	}
	t[name] = append(t[name], c)
	return nil
}

// median is the middle of the times, by themselves, and of the processor's.
func (t prices) median(name string) price {
	pick := func(of func(price) time.Duration) time.Duration {
		var all []time.Duration
		for _, c := range t[name] {
			all = append(all, of(c))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return price{pick(func(c price) time.Duration { return c.wall }), pick(func(c price) time.Duration { return c.processor })}
}

// show gives the medians, and with bytes a rate.
func (t prices) show(name string, bytes int64) string {
	m := t.median(name)
	text := fmt.Sprintf("%.0f ms median, %.0f ms of processor", milli(m.wall), milli(m.processor))
	if bytes > 0 {
		text += fmt.Sprintf(", %.0f MB/s", float64(bytes)/1e6/m.wall.Seconds())
	}
	return text
}

// ratio is what a takes of b.
func (t prices) ratio(a, b string) string {
	x, y := t.median(a), t.median(b)
	return fmt.Sprintf("%.2f by medians, %.2f by processor time", milli(x.wall)/milli(y.wall), milli(x.processor)/milli(y.processor))
}
