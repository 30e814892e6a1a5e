package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A container that begins anew is another pod, whose log is empty. What those before it
// have printed is kept on this machine, beside the cluster's state: a file for each of its
// outputs, of lines that begin with their time.

const (
	// maxPast is how many bytes are kept of each output of a container; the oldest lines go.
	maxPast = 10 << 20
	// pastDir is where, below the data directory.
	pastDir = "past"
)

// outputs are the streams of a container, by the API's names.
var outputs = []string{"Stdout", "Stderr"} //nolint:gochecknoglobals // a constant list

// pastLog is the file of an output of a container. IDs are annotations, which anybody may
// have written who may write pods.
func (s Settings) pastLog(pod *corev1.Pod, output string) (string, bool) {
	id := idOf(pod)
	if id == "" || strings.Trim(id, "0123456789abcdef") != "" || os.Geteuid() != 0 {
		return "", false
	}
	return filepath.Join(s.DataDir, pastDir, id+"."+strings.ToLower(output)), true
}

// keepPast keeps what a pod has printed, which goes with it.
func (r *renewal) keepPast(ctx context.Context, pod *corev1.Pod) error {
	for _, output := range outputs {
		path, ok := r.settings.pastLog(pod, output)
		if !ok {
			return nil
		}
		before, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		now, err := r.printed(ctx, pod, output, true)
		if err != nil {
			return err
		}
		all := newest(slices.Concat(before, now), maxPast)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := writeTo(path, nil, 0o600, func(w io.Writer) error { _, err := w.Write(all); return err }); err != nil {
			return err
		}
	}
	return nil
}

// printed is what a pod's container has printed to one output, each line with its time: in
// its runs but this, and in this one too where that is asked for. A node keeps the last two.
func (s *server) printed(ctx context.Context, pod *corev1.Pod, output string, current bool) ([]byte, error) {
	var all bytes.Buffer
	ask := func(previous bool) error {
		q := logQuery{timestamps: true, previous: previous, tail: -1}.values(mainContainer(pod))
		q.Set("stream", output)
		return s.log(ctx, podName{namespace: pod.Namespace, name: pod.Name}, q, &newestOf{to: &all, most: maxPast})
	}
	if look(pod).restarts > 0 {
		if err := ask(true); err != nil && ctx.Err() != nil {
			return nil, err // else the node has no more of that run
		}
	}
	if !current {
		return all.Bytes(), nil
	}
	err := ask(false)
	return all.Bytes(), err
}

// newestOf keeps what is written to it within bounds.
type newestOf struct {
	to   *bytes.Buffer
	most int
}

// Write implements io.Writer.
func (n *newestOf) Write(p []byte) (int, error) {
	if n.to.Write(p); n.to.Len() > 2*n.most {
		kept := bytes.Clone(newest(n.to.Bytes(), n.most))
		n.to.Reset()
		n.to.Write(kept)
	}
	return len(p), nil
}

// newest are the last whole lines of a text that are no more than so many bytes.
func newest(text []byte, most int) []byte {
	if len(text) <= most {
		return text
	}
	text = text[len(text)-most:]
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	return rest
}

// pastLine is a line of an earlier run; its text has the line's end.
type pastLine struct {
	at     time.Time
	output string
	stamp  string
	text   string
}

// pastLines reads lines that begin with their time, as far as the query wants them.
func pastLines(raw []byte, output string, l logQuery) (all []pastLine) {
	for line := range strings.Lines(string(raw)) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || at.Before(l.since) || !l.until.IsZero() && at.After(l.until) {
			continue
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n" // the run has ended within it
		}
		all = append(all, pastLine{at, output, stamp, text})
	}
	return all
}

// past are the lines of a container's runs before this one, in the order of time.
func (s *Settings) past(ctx context.Context, server *server, pod *corev1.Pod, l logQuery) ([]pastLine, error) {
	var all []pastLine
	for _, output := range outputs {
		if path, ok := s.pastLog(pod, output); ok {
			raw, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			all = append(all, pastLines(raw, output, l)...)
		}
		raw, err := server.printed(ctx, pod, output, false)
		if err != nil {
			return nil, err
		}
		all = append(all, pastLines(raw, output, l)...)
	}
	slices.SortStableFunc(all, func(a, b pastLine) int { return a.at.Compare(b.at) })
	return all, nil
}

// tellPast shows what a container has printed in its runs before this one, as far as the
// last lines that are asked for are not this one's.
func (s *Settings) tellPast(ctx context.Context, server *server, pod *corev1.Pod, l logQuery, out, errOut io.Writer) error {
	all, err := s.past(ctx, server, pod, l)
	if err != nil || len(all) == 0 {
		return err
	}
	if l.tail >= 0 {
		var now lineCount
		asked := l
		asked.follow = false
		if err := server.logs(ctx, at(pod), asked, &now, &now); err != nil {
			return err
		}
		all = all[max(0, len(all)-int(max(0, l.tail-int64(now)))):]
		errOut = out
	}
	for _, line := range all {
		to := out
		if line.output == "Stderr" {
			to = errOut
		}
		if l.timestamps {
			line.text = line.stamp + " " + line.text
		}
		if _, err := io.WriteString(to, line.text); err != nil {
			return err
		}
	}
	return nil
}

// lineCount counts the lines that are written to it.
type lineCount int64

// Write implements io.Writer.
func (n *lineCount) Write(p []byte) (int, error) {
	*n += lineCount(bytes.Count(p, []byte("\n")))
	return len(p), nil
}

// dropPast forgets what a container that has gone has printed.
func (s Settings) dropPast(pod *corev1.Pod) error {
	for _, output := range outputs {
		path, ok := s.pastLog(pod, output)
		if !ok {
			return nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("what %s has printed: %w", pod.Name, err)
		}
	}
	return nil
}

// prunePast forgets what containers have printed of which there are none any more.
func (s Settings) prunePast(pods []*corev1.Pod, before time.Time) error {
	here := map[string]bool{}
	for _, pod := range pods {
		here[idOf(pod)] = true
	}
	dir := filepath.Join(s.DataDir, pastDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		id, _, _ := strings.Cut(e.Name(), ".")
		info, infoErr := e.Info()
		if here[id] || infoErr != nil || info.ModTime().After(before) {
			continue // it may just be between two pods
		}
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return err
}
