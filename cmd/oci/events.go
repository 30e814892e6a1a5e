package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// defaultInterval is how often events measures; runc's.
const defaultInterval = 5 * time.Second

// events prints one JSON object a line: measurements, and that the container ran out of
// memory, until it ends; with --stats one measurement, and no more.
func events(p *program, args []string) error {
	f := verb("events")
	stats := f.Bool("stats", false, "one measurement")
	interval := f.Duration("interval", defaultInterval, "time between two measurements")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	to := json.NewEncoder(os.Stdout)
	measured := func(u cgroup.Usage) error { return to.Encode(event{Type: "stats", ID: id, Data: statsOf(&u)}) }
	if *stats {
		u, err := p.oci.Usage(id)
		if err != nil {
			return err
		}
		return measured(u)
	}
	return p.oci.Follow(id, container.OCIFollow{
		Interval: *interval, Usage: measured,
		OOM: func() error { return to.Encode(event{Type: "oom", ID: id}) },
	})
}

type object = map[string]any

// event is what runc prints, with its members in the order that people match.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data object `json:"data,omitempty"`
}

func statsOf(u *cgroup.Usage) object {
	out := object{
		"cpu": object{
			"usage":      object{"total": u.CPU, "kernel": u.CPUSystem, "user": u.CPUUser},
			"throttling": object{"periods": u.Periods, "throttledPeriods": u.ThrottledPeriods, "throttledTime": u.ThrottledTime},
		},
		"memory": object{
			"cache": u.Cache, "usage": object{"usage": u.Memory, "limit": u.Limit, "max": u.MaxMemory, "failcnt": u.Refused},
			"swap": object{"usage": u.Swap},
		},
		"pids":  object{"current": u.Pids, "limit": u.PidsLimit},
		"blkio": object{},
	}
	for key, p := range map[string]*cgroup.Pressure{"cpu": u.CPUPressure, "memory": u.MemoryPressure, "blkio": u.IOPressure} {
		if p != nil {
			out[key].(object)["psi"] = object{"some": waited(p.Some), "full": waited(p.Full)}
		}
	}
	return out
}

func waited(w cgroup.Waited) object {
	return object{"avg10": w.Avg10, "avg60": w.Avg60, "avg300": w.Avg300, "total": w.Total}
}
