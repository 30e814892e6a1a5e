package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// machine is what processes are measured by.
type machine struct {
	boot   time.Time
	up     time.Duration
	memory int64
}

// column is one that ps can show of a process.
type column struct {
	title string
	cell  func(process, machine) string
}

// psColumn are ps's columns, by the first of their names there: see ps(1), standard format
// specifiers. The others are in psAliases.
//
//nolint:gochecknoglobals // a constant table
var psColumn = map[string]column{
	"pid":  {"PID", func(p process, _ machine) string { return strconv.Itoa(p.pid) }},
	"ppid": {"PPID", func(p process, _ machine) string { return strconv.Itoa(p.parent) }},
	"pgid": {"PGID", func(p process, _ machine) string { return strconv.Itoa(p.group) }},
	"sid":  {"SID", func(p process, _ machine) string { return strconv.Itoa(p.session) }},
	"uid":  {"UID", func(p process, _ machine) string { return p.uid }},
	"user": {"USER", func(p process, _ machine) string { return p.user }},
	"comm": {"COMMAND", func(p process, _ machine) string { return p.name }},
	"args": {"COMMAND", func(p process, _ machine) string { return p.command }},
	"tty":  {"TTY", func(p process, _ machine) string { return p.tty }},
	"stat": {"STAT", func(p process, _ machine) string { return p.state }},
	"nice": {"NI", func(p process, _ machine) string { return strconv.Itoa(p.nice) }},
	"nlwp": {"NLWP", func(p process, _ machine) string { return strconv.Itoa(p.threads) }},
	"rss":  {"RSS", func(p process, _ machine) string { return strconv.FormatInt(p.memory>>10, 10) }},
	"vsz":  {"VSZ", func(p process, _ machine) string { return strconv.FormatInt(p.space>>10, 10) }},
	"pmem": {"%MEM", func(p process, m machine) string { return percent(float64(p.memory), float64(m.memory)) }},
	"pcpu": {"%CPU", func(p process, m machine) string { return percent(float64(p.used), float64(m.up-p.start)) }},
	"c": {"C", func(p process, m machine) string {
		return strings.Split(percent(float64(p.used), float64(m.up-p.start)), ".")[0]
	}},
	"time":  {"TIME", func(p process, _ machine) string { return clock(p.used) }},
	"etime": {"ELAPSED", func(p process, m machine) string { return clock(m.up - p.start) }},
	"stime": {"STIME", began},
}

// psAliases are further names of columns.
//
//nolint:gochecknoglobals // a constant table
var psAliases = map[string]string{
	"command": "args", "cmd": "args", "ucmd": "comm", "cputime": "time", "tt": "tty", "tname": "tty", "ni": "nice", "pgrp": "pgid", "sess": "sid",
	"session": "sid", "s": "stat", "state": "stat", "%mem": "pmem", "%cpu": "pcpu", "start": "stime", "start_time": "stime", "rssize": "rss", "rsz": "rss",
	"vsize": "vsz", "thcount": "nlwp", "euser": "user", "uname": "user", "euid": "uid",
}

// The columns of ps -ef, and of ps aux. What -ef calls UID is the user.
//
//nolint:gochecknoglobals // constant lists
var (
	psFull = append([]column{{"UID", psColumn["user"].cell}}, append(columnsNamed("pid", "ppid", "c", "stime", "tty", "time"), column{"CMD", psColumn["args"].cell})...)
	psUser = append(columnsNamed("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat"), append([]column{{"START", began}}, columnsNamed("time", "args")...)...)
)

func columnsNamed(names ...string) (all []column) {
	for _, name := range names {
		all = append(all, psColumn[name])
	}
	return all
}

// psColumns reads ps's options as far as they choose columns: which processes is no
// question, so its letters for that say nothing.
func psColumns(words []string) ([]column, error) {
	if len(words) == 0 {
		return psFull, nil
	}
	letters := strings.TrimPrefix(words[0], "-")
	switch {
	case slices.Contains([]string{"ef", "efww", "e", "A", "f", "eF"}, letters) && len(words) == 1:
		return psFull, nil
	case slices.Contains([]string{"aux", "auxw", "auxww", "u"}, letters) && len(words) == 1:
		return psUser, nil
	}
	before, list, ok := strings.Cut(letters, "o")
	if !ok || strings.Trim(before, "aAexw") != "" {
		return nil, fmt.Errorf("%s: want aux, -ef, or -o and columns, such as -o pid,rss,args", strings.Join(words, " "))
	}
	var shown []column
	for _, name := range strings.FieldsFunc(strings.Join(append([]string{list}, words[1:]...), ","), func(r rune) bool { return r == ',' || r == ' ' }) {
		name, title, titled := strings.Cut(name, "=")
		if other, ok := psAliases[name]; ok {
			name = other
		}
		c, ok := psColumn[name]
		if !ok {
			return nil, fmt.Errorf("-o: there is no column %q", name)
		}
		if titled {
			c.title = title
		}
		shown = append(shown, c)
	}
	if len(shown) == 0 {
		return nil, fmt.Errorf("-o: want columns, such as pid,rss,args")
	}
	return shown, nil
}

func printProcesses(out io.Writer, all []process, shown []column, m machine) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	line := func(cell func(column) string) {
		var cells []string
		for _, c := range shown {
			cells = append(cells, cell(c))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	line(func(c column) string { return c.title })
	for _, p := range all {
		line(func(c column) string { return c.cell(p, m) })
	}
	return w.Flush()
}

func percent(part, whole float64) string {
	if whole <= 0 {
		return "0.0"
	}
	return strconv.FormatFloat(100*part/whole, 'f', 1, 64)
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// began is when a process did: the time of day, or the day.
func began(p process, m machine) string {
	at := m.boot.Add(p.start)
	if time.Since(at) > 24*time.Hour {
		return at.Format("Jan02")
	}
	return at.Format("15:04")
}

// printable is what a process says of itself: it chooses its own words, which are not for
// the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}

// memoryOf is how much memory the machine has, 0 where that is not known.
func memoryOf(proc string) int64 {
	raw, err := os.ReadFile(filepath.Join(proc, "meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes numbers
			return kib << 10
		}
	}
	return 0
}
