package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"

	// The zones travel with the program: a CronJob's time zone must mean the same
	// on a host without /usr/share/zoneinfo. Upstream's control plane does so, too.
	_ "time/tzdata"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/sampan-dev/sampan/kinds/batch"
)

const (
	// tooMany missed times are worth a warning: the clock may be wrong.
	tooMany = 100
	// delta is a margin for clocks that are not quite together, as upstream.
	delta = 100 * time.Millisecond
)

// schedule is when a cron job is due, in its time zone.
type schedule struct {
	batch.Schedule
	zone *time.Location
}

// zoneError says that there is no such time zone.
type zoneError struct {
	zone  string
	cause error
}

func (e *zoneError) Error() string { return fmt.Sprintf("invalid timeZone: %q: %s", e.zone, e.cause) }

// parse reads a cron job's schedule. A zone within the schedule ("TZ=Europe/Rome
// 0 4 * * *"), which the API refuses today but old objects have, goes before the
// field.
func parse(spec *batchv1.CronJobSpec) (schedule, error) {
	s := schedule{zone: time.Local}
	text := spec.Schedule
	if spec.TimeZone != nil {
		zone, err := time.LoadLocation(*spec.TimeZone)
		if err != nil {
			return s, &zoneError{*spec.TimeZone, err}
		}
		s.zone = zone
	}
	for _, prefix := range []string{"TZ=", "CRON_TZ="} {
		rest, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		name, fields, _ := strings.Cut(rest, " ")
		zone, err := time.LoadLocation(name)
		if err != nil {
			return s, fmt.Errorf("provided bad location %s: %w", name, err)
		}
		s.zone, text = zone, strings.TrimSpace(fields)
	}
	var err error
	s.Schedule, err = batch.ParseSchedule(text)
	return s, err
}

// after is the first time after t; zero if there is none.
func (s schedule) after(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return s.Next(t.In(s.zone))
}

// errTwice: a schedule that is never due, such as the 31st of February.
var errTwice = errors.New("time difference between two schedules is less than 1 second")

// missed is the last time that was due after since and no later than now, zero
// if there is none, and about how many there were.
func (s schedule) missed(since, now time.Time) (last time.Time, n int64, err error) {
	first := s.after(since)
	second := s.after(first)
	switch {
	case first.IsZero():
		return time.Time{}, 0, errTwice
	case now.Before(first):
		return time.Time{}, 0, nil
	case second.IsZero():
		return time.Time{}, 0, errTwice
	case now.Before(second):
		return first, 1, nil
	}
	// As if all were as far apart as the first two: close enough to look from
	// there, without counting every one of years of minutes.
	step := second.Sub(first).Round(time.Second)
	if step < time.Second {
		return time.Time{}, 0, errTwice
	}
	n = int64(now.Sub(first)/step) + 1
	for t := s.after(first.Add(time.Duration(n-2) * step)); !t.IsZero() && !t.After(now); t = s.after(t) {
		last = t
	}
	return last, n, nil
}

// since is the time from which a cron job's schedule is to be kept.
func since(cj *batchv1.CronJob) time.Time {
	if cj.Status.LastScheduleTime != nil {
		return cj.Status.LastScheduleTime.Time
	}
	return cj.CreationTimestamp.Time
}

// due is the time for which a job is to be started now, zero if there is none.
func (s schedule) due(cj *batchv1.CronJob, now time.Time) (at time.Time, many bool, err error) {
	from := since(cj)
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if limit := now.Add(-time.Duration(*d) * time.Second); limit.After(from) {
			from = limit // what is older is given up
		}
	}
	at, n, err := s.missed(from, now)
	return at, n > tooMany, err
}

// wait is how long until the next time after those that have passed.
func (s schedule) wait(cj *batchv1.CronJob, now time.Time) time.Duration {
	from := since(cj)
	last, n, err := s.missed(from, now)
	switch {
	case err != nil || last.IsZero() && n > 0:
		from = now
	case !last.IsZero():
		from = last
	}
	next := s.after(from)
	if next.IsZero() {
		return 0 // never
	}
	return max(delta, next.Sub(now)+delta)
}
