// Package frugal says whether a piece of work is worth its input: tests run
// decoders within it, so that a few bytes from outside which cost seconds or
// hundreds of megabytes are a failure, on a busy machine as on an idle one.
package frugal

import (
	"runtime/metrics"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What any input may cost, and what each byte of it may on top. The least is
// generous: other goroutines of the process count too.
const (
	leastTime   = 2 * time.Second
	timePerByte = 2 * time.Microsecond
	leastMemory = 64 << 20
	perByte     = 2 << 10
)

// Run does work on an input of size bytes, and fails t if that takes more of the
// processor's time or allocates more memory than such an input may cost. Work that
// runs beside it in the process is counted as well.
func Run(t testing.TB, size int, work func()) {
	t.Helper()
	spent, allocated := cpu(t), heap()
	work()
	if took, most := cpu(t)-spent, leastTime+time.Duration(size)*timePerByte; took > most {
		t.Errorf("%d bytes took %v of the processor, more than %v", size, took, most)
	}
	if grown, most := heap()-allocated, uint64(leastMemory+size*perByte); grown > most {
		t.Errorf("%d bytes made the program allocate %d MiB, more than %d", size, grown>>20, most>>20)
	}
}

// cpu is the processor time of this process so far.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// heap is how many bytes this process has allocated so far.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
