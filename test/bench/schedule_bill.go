package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bill is what has been used so far.
type bill struct {
	at     time.Time
	cpu    time.Duration
	queued time.Duration // in which a thread wanted a core that others had
	cycles uint32        // of the collector
	allocs uint64
	bytes  uint64
}

func billed() bill {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return bill{time.Now(), time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), waitedForCores(), m.NumGC, m.Mallocs, m.TotalAlloc}
}

// waitedForCores adds up for how long the threads that live were ready to run and did
// not: on a machine of one's own hardly ever.
func waitedForCores() (sum time.Duration) {
	files, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		return 0
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			if ns, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// since says what n pods have used from before until b.
func (b bill) since(before bill, pods int) string {
	n, took, used := float64(pods), b.at.Sub(before.at).Seconds(), b.cpu-before.cpu
	return fmt.Sprintf("on %.2f cores, %.2f more wanted; %.0f µs of processor and %.0f allocations (%.0f KiB) a pod, %d collections",
		used.Seconds()/took, (b.queued-before.queued).Seconds()/took, float64(used.Microseconds())/n,
		float64(b.allocs-before.allocs)/n, float64(b.bytes-before.bytes)/n/1024, b.cycles-before.cycles)
}

// profiling writes the profile that CPUPROFILE names and the trace that TRACE names,
// from now until done, and then those that ALLOCPROFILE (of all allocations; with
// ".before" appended, of those until now),
// HEAPPROFILE (of what is alive), BLOCKPROFILE and MUTEXPROFILE name.
func profiling() (done func(), err error) {
	if os.Getenv("BLOCKPROFILE") != "" {
		runtime.SetBlockProfileRate(int(10 * time.Microsecond))
	}
	if os.Getenv("MUTEXPROFILE") != "" {
		runtime.SetMutexProfileFraction(10)
	}
	if before := os.Getenv(profiles["allocs"]); before != "" { // it counts from the start of the process
		if err := leave("allocs", before+".before"); err != nil {
			return nil, err
		}
	}
	stopCPU, err := recording("CPUPROFILE", pprof.StartCPUProfile, pprof.StopCPUProfile)
	if err != nil {
		return nil, err
	}
	stopTrace, err := recording("TRACE", trace.Start, trace.Stop)
	if err != nil {
		return nil, err
	}
	return func() {
		stopTrace()
		stopCPU()
		for _, kind := range []string{"allocs", "heap", "block", "mutex"} {
			if err := leave(kind, os.Getenv(profiles[kind])); err != nil {
				fmt.Fprintln(os.Stderr, "profile of", kind+":", err)
			}
		}
	}, nil
}

// recording begins what the variable names a file for, if it does.
func recording(variable string, start func(io.Writer) error, stop func()) (done func(), err error) {
	path := os.Getenv(variable)
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := start(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		stop()
		_ = f.Close()
	}, nil
}

// profiles are the variables that name the files of profiles.
var profiles = map[string]string{"allocs": "ALLOCPROFILE", "heap": "HEAPPROFILE", "block": "BLOCKPROFILE", "mutex": "MUTEXPROFILE"}

// leave writes one of them; an empty path is none.
func leave(kind, path string) error {
	if path == "" {
		return nil
	}
	if kind == "heap" {
		runtime.GC() // what is alive now, not after the last collection
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(kind).WriteTo(f, 0), f.Close())
}
