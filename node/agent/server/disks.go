package server

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// diskUse is what went to a disk or a part of one since the machine's start, by the columns
// of /proc/diskstats (the kernel's iostats.rst): in requests, sectors and milliseconds.
type diskUse struct {
	name    string
	columns [11]float64
}

// The columns of a disk that cAdvisor tells of, by their place behind its name.
var diskColumns = []struct {
	name, kind, help string
	column           int
	unit             float64
}{
	{"container_fs_reads_merged_total", "counter", "Cumulative count of reads merged", 1, 1},
	{"container_fs_sector_reads_total", "counter", "Cumulative count of sector reads completed", 2, 1},
	{"container_fs_read_seconds_total", "counter", "Cumulative count of seconds spent reading", 3, 1000},
	{"container_fs_writes_merged_total", "counter", "Cumulative count of writes merged", 5, 1},
	{"container_fs_sector_writes_total", "counter", "Cumulative count of sector writes completed", 6, 1},
	{"container_fs_write_seconds_total", "counter", "Cumulative count of seconds spent writing", 7, 1000},
	{"container_fs_io_current", "gauge", "Number of I/Os currently in progress", 8, 1},
	{"container_fs_io_time_seconds_total", "counter", "Cumulative count of seconds spent doing I/Os", 9, 1000},
	{"container_fs_io_time_weighted_seconds_total", "counter", "Cumulative weighted I/O time in seconds", 10, 1000},
}

// disks are those of the machine with a file system that is mounted: of containers the
// kernel counts none of this.
func (p *page) disks() {
	stats, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	list := mountedDisks(string(stats), string(mounts))
	for _, c := range diskColumns {
		p.family(c.name, c.kind, c.help)
		for _, d := range list {
			p.line(c.name, fmt.Sprintf(`{container="",device=%q,id="/",image="",name="",namespace="",pod=""}`, "/dev/"+d.name), d.columns[c.column]/c.unit, time.Time{})
		}
	}
}

// mountedDisks reads both files; lines of another shape are passed over.
func mountedDisks(stats, mountinfo string) (list []diskUse) {
	mounted := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 2 {
			mounted[f[2]] = true
		}
	}
	for line := range strings.Lines(stats) {
		f := strings.Fields(line)
		d := diskUse{}
		if len(f) < 3+len(d.columns) || !mounted[f[0]+":"+f[1]] {
			continue
		}
		d.name = f[2]
		for i := range d.columns {
			d.columns[i], _ = strconv.ParseFloat(f[3+i], 64) // the kernel's own
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b diskUse) int { return strings.Compare(a.name, b.name) })
	return list
}
