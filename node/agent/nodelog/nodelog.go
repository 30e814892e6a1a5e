package nodelog

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journalctl is the program that reads the journal, looked for in the PATH.
const journalctl = "journalctl"

// Limits of an answer.
const (
	// maxTime is how long one may take, upstream's.
	maxTime = 30 * time.Second
	// maxUnits bounds the list of the journal's units: some thousand names.
	maxUnits = 4 << 20
)

// errNoFile is about pipes and devices: opening one might wait for ever.
var errNoFile = errors.New("is no file")

// Logs are those of a node. They may be asked from any goroutine.
type Logs struct {
	// Dir is where the machine's programs write log files, /var/log.
	Dir string
	// Journal is the program that reads the journal; "" means journalctl.
	Journal string
}

// Files answers with a file of the directory or the list of one, as r's path says.
func (l Logs) Files(w http.ResponseWriter, r *http.Request) {
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		http.Error(w, "the node has no logs to show", http.StatusNotFound)
		return
	}
	defer root.Close()
	http.FileServerFS(below{root}).ServeHTTP(w, r)
}

// below are the files and directories below a directory, and nothing else of what is
// there: what a container has put into a directory of logs that it was given may be a pipe.
type below struct{ root *os.Root }

// Open implements fs.FS. It waits for nobody.
func (b below) Open(name string) (fs.File, error) {
	f, err := b.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ServeHTTP answers a question, or, when there is none, as Files does.
func (l Logs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, err := Parse(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if q == nil {
		l.Files(w, r)
		return
	}
	if strings.Trim(r.URL.Path, "/") != "" {
		http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		return
	}
	err = q.check()
	if err == nil && len(q.Files) == 1 {
		err = l.file(w, r, q.Files[0])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotAcceptable)
		return
	}
	if len(q.Files) == 0 {
		l.answer(w, r, q)
	}
}

// file shows one file, or the list of a directory. A path begins at the directory, with a
// slash or without; what separates its parts may be Windows'.
func (l Logs) file(w http.ResponseWriter, r *http.Request, path string) error {
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		return invalid("query", fmt.Sprintf("%q", path), err.Error())
	}
	defer root.Close()
	name := cmp.Or(strings.Trim(strings.ReplaceAll(path, `\`, "/"), "/"), ".")
	f, err := below{root}.Open(name)
	if err != nil {
		return invalid("query", fmt.Sprintf("%q", path), err.Error())
	}
	_ = f.Close() // it was only looked for
	http.ServeFileFS(w, r, below{root}, name)
	return nil
}

// answer writes the services' logs. What goes wrong is part of the text: the beginning is
// on its way by then.
func (l Logs) answer(w http.ResponseWriter, r *http.Request, q *Query) {
	ctx, cancel := context.WithTimeout(r.Context(), maxTime)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain;charset=UTF-8")
	var out io.Writer = w
	if r.Header.Get("Accept-Encoding") == "gzip" {
		w.Header().Set("Content-Encoding", "gzip")
		packed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is one that there is
		defer func() { _ = packed.Close() }()               // who asked has gone
		out = packed
	}
	inJournal, inFiles := l.split(ctx, q.Services)
	if len(inJournal) > 0 {
		l.journal(ctx, out, q.arguments(inJournal))
	}
	if len(inFiles) > 0 && q.optioned() {
		fmt.Fprintf(out, "\noptions present and query resolved to log files for %v\ntry without specifying options\n", inFiles)
		return
	}
	for _, service := range inFiles {
		l.copy(ctx, out, service)
	}
}

// split says which services log to the journal; without one none does.
func (l Logs) split(ctx context.Context, services []string) (inJournal, inFiles []string) {
	var list bytes.Buffer
	cmd := l.command(ctx, "--field", "_SYSTEMD_UNIT")
	cmd.Stdout = &bounded{w: &list, left: maxUnits}
	if err := cmd.Run(); err != nil {
		return nil, services
	}
	units := strings.Fields(list.String())
	for _, s := range services {
		// Upstream looks for NAME.service anywhere in the list, so that "let" is kubelet's.
		if slices.Contains(units, s+".service") || slices.Contains(units, s) {
			inJournal = append(inJournal, s)
		} else {
			inFiles = append(inFiles, s)
		}
	}
	return inJournal, inFiles
}

func (l Logs) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, cmp.Or(l.Journal, journalctl), args...)
}

func (l Logs) journal(ctx context.Context, out io.Writer, args []string) {
	cmd := l.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // who exits has said why
		fmt.Fprint(out, "\nerror: journal output not available\n")
	}
}

// copy writes the first of the files that may be a service's log.
func (l Logs) copy(ctx context.Context, out io.Writer, service string) {
	for _, name := range []string{service, service + ".log", service + "/" + service + ".log"} {
		err := l.copyFile(ctx, out, name)
		switch {
		case err == nil:
			return
		case !errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(out, "\nerror getting log for %s: %v\n", service, err)
			return
		}
	}
	fmt.Fprintf(out, "\nlog not found for %s\n", service)
}

func (l Logs) copyFile(ctx context.Context, out io.Writer, name string) error {
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := below{root}.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, reader{ctx, f})
	return err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// bounded drops what is beyond its bound.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if _, err := b.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
