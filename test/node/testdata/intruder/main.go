// The intruder is the only program in the images of these tests: what an ordinary
// container does, and what a hostile one would.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"wait"}
	}
	if err := run(args[0], args[1:]); err != nil {
		fmt.Println("intruder:", err)
		os.Exit(3)
	}
}

// run does one command; several are joined by "then".
func run(name string, args []string) error {
	for i, a := range args {
		if a == "then" && i+1 < len(args) {
			if err := run(name, args[:i]); err != nil {
				return err
			}
			return run(args[i+1], args[i+2:])
		}
	}
	switch name {
	case "echo":
		fmt.Println(strings.Join(args, " "))
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "wait":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("waiting")
		fmt.Println("got", <-signals)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		forever()
	case "cat":
		b, err := os.ReadFile(args[0])
		fmt.Println(strings.TrimSpace(string(b)))
		return err
	case "write":
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "status":
		return status(args[0])
	case "spam":
		return spam(args)
	case "fill":
		return fill(args)
	case "eat":
		return eat(args)
	case "burn":
		return burn(args[0])
	case "serve":
		return serve(args[0])
	case "exists":
		_, err := os.Stat(args[0])
		return err
	case "remove":
		return os.Remove(args[0])
	default:
		return hostile(name, args)
	}
	return nil
}

// forever does nothing; a program whose goroutines all wait would end.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

func status(field string) error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			fmt.Println(strings.TrimSpace(v))
			return nil
		}
	}
	return fmt.Errorf("/proc/self/status has no field %q", field)
}

// spam writes so many lines of so many bytes, numbered.
func spam(args []string) error {
	lines, err := strconv.Atoi(args[0])
	size, err2 := strconv.Atoi(args[1])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	for i := range lines {
		if _, err := fmt.Printf("%06d %s\n", i, strings.Repeat("x", size)); err != nil {
			return err
		}
	}
	return nil
}

// fill writes a file of so many MiB.
func fill(args []string) error {
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range mib {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Close()
}

// eat touches so many MiB and keeps them until it is told to end.
func eat(args []string) error {
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := make([]byte, mib<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println("ate", mib)
	err = run("wait", nil)
	b[0] = 2
	return err
}

// burn uses all of one CPU for so many milliseconds and says how much it got.
func burn(ms string) error {
	n, err := strconv.Atoi(ms)
	if err != nil {
		return err
	}
	for end := time.Now().Add(time.Duration(n) * time.Millisecond); time.Now().Before(end); {
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	fmt.Println("burnt", time.Duration(u.Utime.Nano()+u.Stime.Nano()).Milliseconds())
	return nil
}

// serve answers health checks by HTTP and by gRPC on one port: well unless there
// is a file /tmp/sick.
func serve(port string) error {
	well := func() bool { _, err := os.Stat("/tmp/sick"); return err != nil }
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if !well() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintln(w, "seen")
	})
	mux.HandleFunc("/grpc.health.v1.Health/Check", func(w http.ResponseWriter, _ *http.Request) {
		state := byte(1) // SERVING
		if !well() {
			state = 2
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Write([]byte{0, 0, 0, 0, 2, 8, state}) // one message: field 1 is the state
		w.Header().Set("Grpc-Status", "0")
	})
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Addr: ":" + port, Handler: mux, Protocols: protocols, ReadHeaderTimeout: time.Second}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() { <-signals; os.Exit(0) }()
	fmt.Println("serving")
	return s.ListenAndServe()
}
