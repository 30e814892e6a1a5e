// The probe is the only program in the exam's image: each of its commands shows
// or does one thing that a container can see or do.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"nothing"}
	}
	if err := run(args[0], args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
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
	case "complain":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "wait":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
		fmt.Println("waiting")
		fmt.Println("got", <-signals)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		for { // a signal of Go's own scheduler ends the pause
			_ = syscall.Pause()
		}
	default:
		return look(name, args)
	}
	return nil
}

// look are the commands that show something.
func look(name string, args []string) error {
	switch name {
	case "cat":
		b, err := os.ReadFile(args[0])
		_, werr := os.Stdout.Write(b)
		return errors.Join(err, werr)
	case "write":
		return os.WriteFile(args[0], []byte(args[1]), 0o644)
	case "env":
		fmt.Println(os.Getenv(args[0]))
	case "cwd":
		dir, err := os.Getwd()
		fmt.Println(dir)
		return err
	case "id":
		groups, err := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
		return err
	case "hostname":
		h, err := os.Hostname()
		fmt.Println(h)
		return err
	case "pid":
		fmt.Println(os.Getpid())
	case "netns":
		l, err := os.Readlink("/proc/self/ns/net")
		fmt.Println(l)
		return err
	case "status":
		return status(args[0])
	case "link":
		l, err := os.Readlink(args[0])
		fmt.Println(l)
		return err
	case "list":
		entries, err := os.ReadDir(args[0])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	default:
		return work(name, args)
	}
	return nil
}

// work are the commands that use something.
func work(name string, args []string) error {
	switch name {
	case "copy":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "spam":
		return spam(os.Stdout, args[0])
	case "rage":
		return spam(os.Stderr, args[0])
	case "tmpfs":
		if err := syscall.Mount("probe", args[0], "tmpfs", 0, "size=1m"); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(args[0], "file"), []byte("mounted inside"), 0o644)
	case "eat":
		return eat(args[0])
	case "fork":
		return fork(args[0])
	case "serve":
		return serve(args[0])
	case "get":
		c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, c)
		return err
	case "processes":
		dirs, err := filepath.Glob("/proc/[0-9]*")
		fmt.Println(len(dirs))
		return err
	default:
		return fmt.Errorf("no command %q", name)
	}
}

// spam writes so many bytes.
func spam(to io.Writer, bytes string) error {
	n, err := strconv.Atoi(bytes)
	b := []byte(strings.Repeat("x", 1<<16))
	for ; n > 0 && err == nil; n -= len(b) {
		_, err = to.Write(b[:min(n, len(b))])
	}
	return err
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

// eat touches so many MiB and keeps them.
func eat(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	b := make([]byte, n<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println("ate", len(b))
	return nil
}

// serve answers every connection with the host's name.
func serve(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "hello from %s\n", host)
		c.Close()
	}
}
