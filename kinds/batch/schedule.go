package batch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is a cron schedule: five fields, a descriptor such as @daily, or
// @every with a duration. It is a value; times are those of the location that
// Next is asked in.
type Schedule struct {
	minute, hour, day, month, weekday uint64
	// anyDay and anyWeekday: the field was "*" or "?". When neither is, a day
	// need match one of the two only, as in every cron since the seventies.
	anyDay, anyWeekday bool
	every              time.Duration
}

// limits are the values a field may have, and the names that stand for some.
type limits struct {
	low, high int
	names     string
}

// The fields of a schedule, in their order. Sunday is 0, and not 7.
var fieldLimits = [...]limits{
	{0, 59, ""},
	{0, 23, ""},
	{1, 31, ""},
	{1, 12, " jan feb mar apr may jun jul aug sep oct nov dec"},
	{0, 6, "sun mon tue wed thu fri sat"},
}

// descriptors are schedules by name.
var descriptors = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// ParseSchedule reads a schedule without a time zone. Errors are worded as those
// of the parser that upstream uses.
func ParseSchedule(text string) (Schedule, error) {
	if text == "" {
		return Schedule{}, errors.New("empty spec string")
	}
	if length, ok := strings.CutPrefix(text, "@every "); ok {
		every, err := time.ParseDuration(length)
		if err != nil {
			return Schedule{}, fmt.Errorf("failed to parse duration %s: %w", text, err)
		}
		return Schedule{every: max(every.Truncate(time.Second), time.Second)}, nil
	}
	if strings.HasPrefix(text, "@") {
		long, ok := descriptors[text]
		if !ok {
			return Schedule{}, fmt.Errorf("unrecognized descriptor: %s", text)
		}
		text = long
	}
	fields := strings.Fields(text)
	if len(fields) != len(fieldLimits) {
		return Schedule{}, fmt.Errorf("expected exactly %d fields, found %d: %v", len(fieldLimits), len(fields), fields)
	}
	var bits [len(fieldLimits)]uint64
	for i, f := range fields {
		for _, part := range strings.Split(f, ",") {
			set, err := parsePart(part, fieldLimits[i])
			if err != nil {
				return Schedule{}, err
			}
			bits[i] |= set
		}
	}
	s := Schedule{minute: bits[0], hour: bits[1], day: bits[2], month: bits[3], weekday: bits[4]}
	s.anyDay, s.anyWeekday = isAny(fields[2]), isAny(fields[4])
	return s, nil
}

// isAny: the field leaves the other of the two day fields in charge. A step
// makes it choosy again.
func isAny(f string) bool {
	for _, part := range strings.Split(f, ",") {
		if part = strings.TrimSuffix(part, "/1"); part == "*" || part == "?" {
			return true
		}
	}
	return false
}

// parsePart reads "*", "a", "a-b", each with an optional "/step".
func parsePart(part string, l limits) (uint64, error) {
	values, stepText, stepped := strings.Cut(part, "/")
	if strings.Contains(stepText, "/") {
		return 0, fmt.Errorf("too many slashes: %s", part)
	}
	step := 1
	if stepped {
		n, err := parseNumber(stepText)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, fmt.Errorf("step of range should be a positive number: %s", part)
		}
		step = n
	}
	first, last, err := parseRange(values, part, l)
	if err != nil {
		return 0, err
	}
	if stepped && !strings.Contains(values, "-") {
		last = l.high
	}
	switch {
	case first < l.low:
		return 0, fmt.Errorf("beginning of range (%d) below minimum (%d): %s", first, l.low, part)
	case last > l.high:
		return 0, fmt.Errorf("end of range (%d) above maximum (%d): %s", last, l.high, part)
	case first > last:
		return 0, fmt.Errorf("beginning of range (%d) beyond end of range (%d): %s", first, last, part)
	}
	var set uint64
	for n := first; n <= last; n += step {
		set |= 1 << n
	}
	return set, nil
}

func parseRange(values, part string, l limits) (first, last int, err error) {
	if values == "*" || values == "?" {
		return l.low, l.high, nil
	}
	from, to, ranged := strings.Cut(values, "-")
	if strings.Contains(to, "-") {
		return 0, 0, fmt.Errorf("too many hyphens: %s", part)
	}
	if first, err = l.value(from); err != nil || !ranged {
		return first, first, err
	}
	last, err = l.value(to)
	return first, last, err
}

// value is a number, or a month or day by the first three letters of its name.
func (l limits) value(text string) (int, error) {
	if len(text) == 3 && l.names != "" {
		names := strings.Split(l.names, " ")
		for i, name := range names {
			if strings.EqualFold(name, text) {
				return i, nil
			}
		}
	}
	return parseNumber(text)
}

func parseNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("failed to parse int from %s: %w", text, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("negative number (%d) not allowed: %s", n, text)
	}
	return n, nil
}

// searchYears bounds the search of Next: the rarest schedule, a 29th of February
// on a certain weekday, comes round within it.
const searchYears = 40

// Next is the first time after t at which the schedule is due, in t's location;
// zero if it never is (a 31st of February).
func (s Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every).Truncate(time.Second)
	}
	last := t.Year() + searchYears
	t = t.Truncate(time.Minute).Add(time.Minute)
	for t.Year() <= last {
		switch {
		case s.month>>t.Month()&1 == 0:
			t = dayStart(t.Year(), t.Month()+1, 1, t.Location())
		case !s.onDay(t):
			t = dayStart(t.Year(), t.Month(), t.Day()+1, t.Location())
		case s.hour>>t.Hour()&1 == 0:
			t = nextHour(t)
		case s.minute>>t.Minute()&1 == 0:
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// dayStart is midnight, or the first hour there is where summer begins at
// midnight; time.Date may then give the hour before.
func dayStart(year int, month time.Month, day int, zone *time.Location) time.Time {
	t := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if t.Hour() > 12 {
		t = t.Add(time.Duration(24-t.Hour()) * time.Hour)
	}
	return t
}

// nextHour goes by the clock on the wall, which jumps when summer begins.
func nextHour(t time.Time) time.Time {
	return t.Add(time.Hour - time.Duration(t.Minute())*time.Minute)
}

func (s Schedule) onDay(t time.Time) bool {
	day, weekday := s.day>>t.Day()&1 == 1, s.weekday>>t.Weekday()&1 == 1
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}
