// Package nodelog answers questions about the logs of a node's own services, by systemd's
// journal or by files below /var/log: upstream's NodeLogQuery (KEP-2258).
//
// A service is asked for by name. One that the journal knows is answered out of it, by the
// program journalctl; of any other the file NAME, NAME.log or NAME/NAME.log is shown. What
// has a slash in it is a file. Nothing outside of the directory is ever shown: neither a
// path nor a symbolic link leads out of it.
package nodelog

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
)

// Limits of a question, upstream's.
const (
	maxTail     = 100_000
	maxName     = 256
	maxServices = 4
)

// unsafe are characters that no unit's name needs here.
var unsafe = regexp.MustCompile(`[^a-zA-Z\-_.:0-9@]+`)

// Query is a question. Services or a file are asked for, never both.
type Query struct {
	Services, Files []string
	// Since and Until bound the time of entries; the zero time doesn't.
	Since, Until time.Time
	// Tail is how many of the last lines are wanted; nil is all.
	Tail *int
	// Boot is the boot whose entries are wanted: 0 is this one, -1 the one before; nil
	// is all.
	Boot *int
	// Pattern is what entries must match, as journalctl understands it.
	Pattern string
}

// Parse reads a question's parameters: query (which may be repeated), sinceTime, untilTime,
// tailLines, boot and pattern. It is nil when there is none of them.
func Parse(values url.Values) (*Query, error) {
	var q Query
	var bad []error
	for _, name := range values["query"] {
		switch {
		case strings.ContainsAny(name, `/\`):
			q.Files = append(q.Files, name)
		case strings.TrimSpace(name) != "":
			q.Services = append(q.Services, name)
		}
	}
	if values.Has("query") && len(q.Files)+len(q.Services) == 0 {
		bad = append(bad, invalid("query", fmt.Sprintf("%q", values["query"]), "may not be empty"))
	}
	for name, to := range map[string]*time.Time{"sinceTime": &q.Since, "untilTime": &q.Until} {
		if text := values.Get(name); text != "" {
			t, err := time.Parse(time.RFC3339, text)
			if err != nil {
				bad = append(bad, invalid(name, strconv.Quote(text), "invalid time format"))
			}
			*to = t
		}
	}
	for name, to := range map[string]**int{"boot": &q.Boot, "tailLines": &q.Tail} {
		if text := values.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				bad = append(bad, invalid(name, strconv.Quote(text), err.Error()))
			}
			*to = &n
		}
	}
	q.Pattern = values.Get("pattern")
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	if len(q.Files)+len(q.Services) == 0 && !q.optioned() {
		return nil, nil
	}
	return &q, nil
}

func invalid(name, value, why string) error {
	return fmt.Errorf("%s: Invalid value: %s: %s", name, value, why)
}

// optioned reports whether more than whose log is said.
func (q *Query) optioned() bool {
	return !q.Since.IsZero() || !q.Until.IsZero() || q.Tail != nil || q.Boot != nil || q.Pattern != ""
}

// check says what is wrong with a question that could be read.
func (q *Query) check() error {
	var bad []error
	unless := func(ok bool, name, value, why string) {
		if !ok {
			bad = append(bad, invalid(name, value, why))
		}
	}
	for _, s := range q.Services {
		unless(len(s) <= maxName, "query", strconv.Quote(s), fmt.Sprintf("length must be less than %d", maxName))
		unless(!unsafe.MatchString(s), "query", strconv.Quote(s), "input contains unsupported characters")
		unless(!dots(s), "query", strconv.Quote(s), "is no service")
	}
	if n := len(q.Services); n > maxServices {
		bad = append(bad, fmt.Errorf("query: Too many: %d: must have at most %d items", n, maxServices))
	}
	switch {
	case len(q.Files)+len(q.Services) == 0:
		bad = append(bad, errors.New("query: Required value: cannot be empty with options"))
	case len(q.Files) > 0 && len(q.Services) > 0:
		unless(false, "query", fmt.Sprintf("%q", append(q.Files, q.Services...)), "cannot specify a file and service")
	case len(q.Files) > 1:
		unless(false, "query", fmt.Sprintf("%q", q.Files), "cannot specify more than one file")
	case len(q.Files) == 1:
		unless(!q.optioned(), "query", fmt.Sprintf("%q", q.Files), "cannot specify file with options")
	}
	unless(q.Since.IsZero() || q.Until.IsZero() || !q.Since.After(q.Until), "untilTime", q.Until.Format(time.RFC3339), "must be after `sinceTime`")
	if q.Boot != nil {
		unless(*q.Boot <= 0, "boot", strconv.Itoa(*q.Boot), "must be less than 1")
	}
	if q.Tail != nil {
		unless(*q.Tail >= 0 && *q.Tail <= maxTail, "tailLines", strconv.Itoa(*q.Tail), fmt.Sprintf("must be between 0 and %d, inclusive", maxTail))
	}
	_, err := syntax.Parse(q.Pattern, syntax.Perl)
	unless(err == nil, "pattern", strconv.Quote(q.Pattern), fmt.Sprint(err))
	return errors.Join(bad...)
}

// dots are names of directories.
func dots(name string) bool { return strings.Trim(name, ".") == "" }

// journalTime is a time as journalctl reads it. Upstream's kubelet leaves the zone out,
// which the journal takes for the machine's own.
const journalTime = "2006-01-02 15:04:05 UTC"

// arguments ask journalctl for the entries of services.
func (q *Query) arguments(services []string) []string {
	args := []string{"--utc", "--no-pager", "--output=short-precise"}
	if !q.Since.IsZero() {
		args = append(args, "--since="+q.Since.UTC().Format(journalTime))
	}
	if !q.Until.IsZero() {
		args = append(args, "--until="+q.Until.UTC().Format(journalTime))
	}
	if q.Tail != nil {
		args = append(args, "--pager-end", fmt.Sprintf("--lines=%d", *q.Tail))
	}
	for _, s := range services {
		args = append(args, "--unit="+s)
	}
	if q.Pattern != "" {
		args = append(args, "--grep="+q.Pattern)
	}
	if q.Boot != nil {
		args = append(args, fmt.Sprintf("--boot=%d", *q.Boot))
	}
	return args
}
