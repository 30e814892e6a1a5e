// Command hello is the example that every newcomer runs first: a web server that
// says which pod answers, and (hello get URL) the client to ask it with, because
// an image made FROM scratch has no other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := serve
	if len(os.Args) > 1 && os.Args[1] == "get" {
		do = get
	}
	if err := do(ctx); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

// serve answers until SIGTERM, and then finishes what it has begun.
func serve(ctx context.Context) error {
	pod, version := os.Getenv("POD_NAME"), os.Getenv("VERSION")
	greeting, err := os.ReadFile("/etc/hello/greeting")
	if err != nil {
		return fmt.Errorf("read the greeting: %w", err)
	}
	if _, err := os.Stat("/etc/secret/token"); err != nil {
		return fmt.Errorf("the secret is not mounted: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s from %s, version %s\n", greeting, pod, version)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("pod %s, version %s, listening on %s", pod, version, server.Addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Print("stopping")
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(last)
}

// get asks a URL again and again and reports who answered.
func get(ctx context.Context) error {
	flags := flag.NewFlagSet("hello get", flag.ContinueOnError)
	var a asking
	flags.IntVar(&a.count, "n", 1, "requests to make; 0: until interrupted")
	flags.IntVar(&a.distinct, "distinct", 0, "stop, satisfied, once so many different answers have come")
	flags.DurationVar(&a.every, "every", 10*time.Millisecond, "pause between requests")
	flags.BoolVar(&a.quiet, "quiet", false, "print only the summary")
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("usage: hello get [-n N] [-distinct N] [-every D] [-quiet] URL")
	}
	a.url = flags.Arg(0)
	return a.run(ctx)
}

// asking is a series of requests, each on a connection of its own, so that the
// service chooses anew every time.
type asking struct {
	url             string
	count, distinct int
	every           time.Duration
	quiet           bool

	answers        map[string]int
	asked, refused int
	last           error
}

func (a *asking) run(ctx context.Context) error {
	a.answers = map[string]int{}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil && (a.count == 0 || a.asked < a.count) && (a.distinct == 0 || len(a.answers) < a.distinct) {
		a.once(client)
		select {
		case <-ctx.Done():
		case <-time.After(a.every):
		}
	}
	return a.report()
}

// once makes one request.
func (a *asking) once(client *http.Client) {
	a.asked++
	answer, err := fetch(client, a.url)
	if err != nil {
		a.refused++
		a.last = err
		return
	}
	if a.answers[answer]++; a.answers[answer] == 1 && !a.quiet {
		fmt.Print(answer)
	}
}

// report sums up; a failed request, or too few different answers, is an error.
func (a *asking) report() error {
	fmt.Printf("%d requests, %d failed, %d different answers\n", a.asked, a.refused, len(a.answers))
	if a.refused > 0 {
		return fmt.Errorf("%d of %d requests failed, the last with: %w", a.refused, a.asked, a.last)
	}
	if len(a.answers) < a.distinct {
		return fmt.Errorf("%d different answers, want %d", len(a.answers), a.distinct)
	}
	return nil
}

func fetch(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", r.Status)
	}
	return string(body), err
}
