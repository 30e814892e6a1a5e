package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pruneFilter is what --filter of the prunes says, in docker's words: what it fits may go.
type pruneFilter struct {
	// until, unless it is zero, is when it was made at the latest.
	until time.Time
	// with are the labels that it must have, all of them; without are those of which it
	// must have none. A label is NAME or NAME=VALUE.
	with, without []string
	// dangling is true or false, or "" where nothing was said.
	dangling string
	// all is docker's all=true of volumes.
	all bool
}

// pruneFilters reads --filter; known are the names that the verb has.
func pruneFilters(texts []string, now time.Time, known ...string) (pruneFilter, error) {
	var f pruneFilter
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || value == "" || !slices.Contains(known, name) {
			return f, fmt.Errorf("--filter %q: want %s", text, alternatives(known))
		}
		switch name {
		case "until":
			at, err := parseSince("filter until", value, now)
			if err != nil {
				return f, err
			}
			if f.until.IsZero() || at.Before(f.until) {
				f.until = at
			}
		case "label":
			f.with = append(f.with, value)
		case "label!":
			f.without = append(f.without, value)
		case "all":
			f.all = value == "true" || value == "1"
		case "dangling":
			if value != "true" && value != "false" {
				return f, fmt.Errorf("--filter %q: want true or false", text)
			}
			f.dangling = value
		}
	}
	return f, nil
}

// alternatives are the words of --filter, for a person.
func alternatives(names []string) string {
	words := map[string]string{"until": "until=TIME", "label": "label=NAME[=VALUE]", "label!": "label!=NAME[=VALUE]", "dangling": "dangling=true|false", "all": "all=true"}
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = words[name]
	}
	return strings.Join(all, " or ")
}

// fits says whether what was made then, and has those labels, may go. Of several label!=
// one is enough to stay: docker asks for all of them, which nobody means who keeps things.
func (f pruneFilter) fits(made time.Time, labels map[string]string) bool {
	if !f.until.IsZero() && !made.Before(f.until) {
		return false
	}
	for _, want := range f.with {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return !slices.ContainsFunc(f.without, func(not string) bool { return hasLabel(labels, not) })
}

// asks says whether anything was asked for.
func (f pruneFilter) asks() bool { return !f.until.IsZero() || len(f.with)+len(f.without) > 0 }

// hasLabel says whether there is a label NAME, or NAME=VALUE.
func hasLabel(labels map[string]string, want string) bool {
	name, value, exact := strings.Cut(want, "=")
	got, ok := labels[name]
	return ok && (!exact || got == value)
}

// labelsOf reads --label NAME[=VALUE]; nothing is nil.
func labelsOf(texts []string) (map[string]string, error) {
	var all map[string]string
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		if name == "" {
			return nil, fmt.Errorf("--label %q: want NAME[=VALUE]", text)
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = value
	}
	return all, nil
}

// errLabelsOfLayers is why a prune of what builds remember asks for no labels.
var errLabelsOfLayers = errors.New("the layers that builds remember have no labels: want until=TIME")
