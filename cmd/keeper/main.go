// Command keeper is the small program that parents containers, so that Sampan
// itself may crash, restart or be upgraded while they run. One process of it a
// node forks containers, records each exit on disk before anyone hears of it,
// and writes what they print into log files. The same program, started again in
// the namespaces of a container, is that container's first process until it
// executes the container's own.
//
// It is run from a sealed memfd with a listening SOCK_SEQPACKET socket as
// descriptor 3, and imports the standard library only. It decides nothing: see
// package plan.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

func main() {
	runtime.LockOSThread() // a stage enters namespaces with its first thread
	if len(os.Args) > 1 && os.Args[1] == "stage" {
		stage()
	}
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		hold(os.Args[2:])
	}
	if len(os.Args) == 1 && os.Getenv(plan.HaltHow) != "" {
		halt()
	}
	setName("sampan-keeper")
	closeFrom(4) // whatever our starter has inherited and forgotten
	calmWatchdog()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	// Of all processes of the node this is the last that should go. Not everyone
	// may ask for that; then it goes in its turn, and a successor adopts.
	_ = writeFile("/proc/self/oom_score_adj", "-999")
	go func() {
		err := newKeeper().serve(3)
		note("keeper ends", err.Error())
		os.Exit(1)
	}()
	select {} // the first thread must not be lost to a goroutine that enters namespaces
}

// hold keeps the namespaces that it was started in until its stdin is closed:
// meanwhile somebody pins them. First it sets those parameters (user/name=value)
// that nobody outside its user namespace can, says what went wrong, and closes
// its output.
func hold(sysctls []string) {
	for _, s := range sysctls {
		name, value, _ := strings.Cut(s, "=")
		if err := writeFile("/proc/sys/"+name, value); err != nil {
			_, _ = os.Stderr.WriteString("sysctl " + strings.ReplaceAll(name, "/", ".") + " to " + value + ": " + err.Error() + "\n")
		}
	}
	_, _ = os.Stdout.Close(), os.Stderr.Close()
	var b [1]byte
	_, _ = os.Stdin.Read(b[:])
	os.Exit(0)
}

// note writes a line to the keeper's log.
func note(what, detail string) {
	_, _ = os.Stderr.WriteString(time.Now().UTC().Format(time.RFC3339Nano) + " " + what + ": " + detail + "\n")
}
