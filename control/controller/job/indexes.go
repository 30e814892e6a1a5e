package job

import (
	"slices"
	"strconv"
	"strings"
)

// span is the indexes from first to last, both included.
type span struct{ first, last int }

// indexes are completion indexes as status.completedIndexes writes them: spans in
// order that neither touch nor overlap.
type indexes []span

// parseIndexes reads "1,3-5,7". Indexes from limit on do not count; what is no
// number is passed over, since nobody could correct it.
func parseIndexes(text string, limit int) indexes {
	var parsed indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 || first >= limit {
			continue
		}
		last := first
		if ranged {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				continue
			}
		}
		parsed = append(parsed, span{first, min(last, limit-1)})
	}
	return join(parsed)
}

// join sorts spans and unites those that touch.
func join(spans []span) indexes {
	slices.SortFunc(spans, func(a, b span) int { return a.first - b.first })
	var out indexes
	for _, s := range spans {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// with adds single indexes.
func (x indexes) with(more ...int) indexes {
	all := slices.Clone([]span(x))
	for _, i := range more {
		all = append(all, span{i, i})
	}
	return join(all)
}

// union adds other.
func (x indexes) union(other indexes) indexes {
	return join(append(slices.Clone([]span(x)), other...))
}

func (x indexes) has(i int) bool {
	n, found := slices.BinarySearchFunc(x, i, func(s span, i int) int { return s.first - i })
	return found || n > 0 && x[n-1].last >= i
}

// total is how many they are.
func (x indexes) total() int {
	n := 0
	for _, s := range x {
		n += s.last - s.first + 1
	}
	return n
}

// common is how many of them are in other, too.
func (x indexes) common(other indexes) int {
	n, i, j := 0, 0, 0
	for i < len(x) && j < len(other) {
		n += max(0, min(x[i].last, other[j].last)-max(x[i].first, other[j].first)+1)
		if x[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// missing are the first n indexes below limit that are not among x.
func (x indexes) missing(n, limit int) []int {
	var out []int
	next := 0
	for _, s := range append(slices.Clone([]span(x)), span{limit, limit}) {
		for ; next < min(s.first, limit) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, s.last+1)
	}
	return out
}

// String writes two neighbours as "1,2" and three as "1-3", as upstream.
func (x indexes) String() string {
	parts := make([]string, 0, len(x))
	for _, s := range x {
		part := strconv.Itoa(s.first)
		if s.last > s.first {
			separator := "-"
			if s.last == s.first+1 {
				separator = ","
			}
			part += separator + strconv.Itoa(s.last)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}
