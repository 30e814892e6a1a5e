package spec

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopSignal is the number of the signal that asks a container to end: the
// pod's, else the image's, else SIGTERM.
func StopSignal(c *rt.ContainerConfig, image string) unix.Signal {
	name := strings.TrimPrefix(c.GetStopSignal().String(), "SIGNAL_")
	if c.GetStopSignal() == rt.Signal_SIGNAL_RUNTIME_DEFAULT {
		name = image
	}
	if s := parseSignal(name); s != 0 {
		return s
	}
	return unix.SIGTERM
}

// The real-time signals that C programs may use: libc keeps the first two.
const rtMin, rtMax = 34, 64

// parseSignal reads "SIGTERM", "TERM", "15", "SIGRTMIN+3" and the CRI's
// "SIGRTMINPLUS3"; 0 is "no such signal".
func parseSignal(name string) unix.Signal {
	name = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "SIG")
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= rtMax {
		return unix.Signal(n)
	}
	name = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
	for base, n := range map[string]int{"RTMIN": rtMin, "RTMAX": rtMax} {
		offset, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		d := 0
		if offset != "" {
			var err error
			if d, err = strconv.Atoi(offset); err != nil {
				return 0
			}
		}
		if n += d; n >= rtMin && n <= rtMax {
			return unix.Signal(n)
		}
		return 0
	}
	return unix.SignalNum("SIG" + name)
}
