// Command inside is the program of the containers of this package's tests: it says
// what the runtime has left it and passed on, and ends with a code of its own.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	come := make(chan os.Signal, 8)
	signal.Notify(come, syscall.SIGUSR1, syscall.SIGINT, syscall.SIGTERM)
	const getTimerslack = 30
	slack, _, _ := syscall.RawSyscall(syscall.SYS_PRCTL, getTimerslack, 0, 0)
	fmt.Println("slack", slack)
	fmt.Printf("variables %q\n", os.Environ())
	for s := range come {
		fmt.Println("got", s)
		if s == syscall.SIGTERM {
			os.Exit(7)
		}
	}
}
