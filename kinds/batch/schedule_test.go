package batch

import (
	"testing"
	"time"

	"github.com/sampan-dev/sampan/internal/frugal"
)

func TestSchedule(t *testing.T) {
	zone := time.FixedZone("test", 3600)
	from := time.Date(2026, 2, 27, 22, 58, 30, 0, zone) // a Friday
	for _, c := range []struct{ schedule, want string }{
		{"* * * * *", "2026-02-27 22:59"},
		{"*/15 * * * *", "2026-02-27 23:00"},
		{"0 0 * * *", "2026-02-28 00:00"},
		{"30 9-17/4 * * mon-fri", "2026-03-02 09:30"},
		{"0 12 29 2 *", "2028-02-29 12:00"},
		{"0 0 13 * fri", "2026-03-06 00:00"},
		{"0 0 13 * *", "2026-03-13 00:00"},
		{"5,10 4 * jan 0", "2027-01-03 04:05"},
		{"@weekly", "2026-03-01 00:00"},
		{"@hourly", "2026-02-27 23:00"},
		{"@every 90m", "2026-02-28 00:28"},
		{"0 0 31 2 *", "0001-01-01 00:00"},
	} {
		s, err := ParseSchedule(c.schedule)
		if err != nil {
			t.Errorf("%q: %v", c.schedule, err)
			continue
		}
		if got := s.Next(from).Format("2006-01-02 15:04"); got != c.want {
			t.Errorf("%q is next due at %s, want %s", c.schedule, got, c.want)
		}
	}
}

func TestScheduleErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":               "empty spec string",
		"* * *":          "expected exactly 5 fields, found 3: [* * *]",
		"60 * * * *":     "end of range (60) above maximum (59): 60",
		"* * 0 * *":      "beginning of range (0) below minimum (1): 0",
		"5-1 * * * *":    "beginning of range (5) beyond end of range (1): 5-1",
		"*/0 * * * *":    "step of range should be a positive number: */0",
		"1-2-3 * * * *":  "too many hyphens: 1-2-3",
		"1/2/3 * * * *":  "too many slashes: 1/2/3",
		"x * * * *":      `failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax`,
		"* * * * 7":      "end of range (7) above maximum (6): 7",
		"@never":         "unrecognized descriptor: @never",
		"@every a while": `failed to parse duration @every a while: time: invalid duration "a while"`,
	} {
		if _, err := ParseSchedule(text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// The search must end whatever is asked of it.
func FuzzSchedule(f *testing.F) {
	for _, text := range []string{"* * * * *", "@every 1s", "0 0 29 2 mon", "1-5/2,7 * ? * sun"} {
		f.Add(text)
	}
	from := time.Date(2026, 1, 31, 23, 59, 59, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		frugal.Run(t, len(text), func() {
			s, err := ParseSchedule(text)
			if err != nil {
				return
			}
			if next := s.Next(from); !next.IsZero() && !next.After(from) {
				t.Errorf("%q is due at %s, which is not after %s", text, next, from)
			}
		})
	})
}

// Where summer begins at midnight, that day has none.
func TestScheduleWithoutMidnight(t *testing.T) {
	zone, err := time.LoadLocation("America/Havana")
	if err != nil {
		t.Skipf("no zone database: %v", err)
	}
	s, err := ParseSchedule("0 3 8 * *")
	if err != nil {
		t.Fatal(err)
	}
	next := s.Next(time.Date(2026, 3, 7, 12, 0, 0, 0, zone))
	if got := next.Format("2006-01-02 15:04"); got != "2026-03-08 03:00" {
		t.Errorf("next due at %s", got)
	}
}
