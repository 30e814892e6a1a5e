package cronjob

import (
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

// Which time is made up for, how it is told, and when to look again.
func TestDecide(t *testing.T) {
	for _, c := range []struct{ why, schedule, zone, last, now, want string }{
		{"it is not time", "0 * * * *", "UTC", "2030-01-01T10:00:00Z", "2030-01-01T10:59:59Z", "again 1.1s"},
		{"it is time", "0 * * * *", "UTC", "2030-01-01T10:00:00Z", "2030-01-01T11:00:00Z", "start 11:00 again 1h0m0.1s"},
		{"of several missed the last counts", "0 * * * *", "UTC", "2030-01-01T10:00:00Z", "2030-01-01T15:30:00Z", "start 15:00 again 30m0.1s"},
		{"irregular times", "30 6-16/4 * * 1-5", "UTC", "2030-01-04T14:30:00Z", "2030-01-07T11:00:00Z", "start 10:30 again 3h30m0.1s"},
		{"too many missed are worth a warning", "* * * * *", "UTC", "2030-01-01T00:00:00Z", "2030-01-01T10:00:30Z", "start 10:00 TooManyMissedTimes again 30.1s"},
		{"a zone", "0 9 * * *", "Asia/Tokyo", "2030-01-01T00:00:00Z", "2030-01-02T00:00:10Z", "start 00:00 again 23h59m50.1s"},
		{"the hour that summer skips", "30 2 * * *", "Europe/Berlin", "2030-03-30T01:30:00Z", "2030-03-31T12:00:00Z", "again 12h30m0.1s"},
		{"an unknown zone", "0 * * * *", "Mars/Olympus", "2030-01-01T10:00:00Z", "2030-01-01T11:00:00Z", "UnknownTimeZone again 0s"},
		{"nonsense", "0 * * *", "UTC", "2030-01-01T10:00:00Z", "2030-01-01T11:00:00Z", "UnparseableSchedule again 0s"},
		{"a day that never comes", "0 0 31 2 *", "UTC", "2030-01-01T10:00:00Z", "2030-01-01T11:00:00Z", "InvalidSchedule again 0s"},
		{"a zone in the schedule", "TZ=Asia/Tokyo 0 9 * * *", "", "2030-01-01T00:00:00Z", "2030-01-02T00:00:10Z", "start 00:00 UnsupportedSchedule again 23h59m50.1s"},
	} {
		last := metav1.NewTime(at(c.last))
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: c.schedule}}
		if c.zone != "" {
			cj.Spec.TimeZone = &c.zone
		}
		cj.Status.LastScheduleTime = &last
		if got := show(decide(cj, nil, at(c.now))); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
}

func show(p plan) string {
	text := ""
	if !p.start.IsZero() {
		text = "start " + p.start.UTC().Format("15:04") + " "
	}
	for _, n := range p.news {
		text += n.reason + " "
	}
	return text + fmt.Sprintf("again %v", p.again)
}

func TestDeadline(t *testing.T) {
	deadline, last := int64(100), metav1.NewTime(at("2030-01-01T10:00:00Z"))
	cj := &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 * * * *", StartingDeadlineSeconds: &deadline}}
	cj.Status.LastScheduleTime = &last
	for now, want := range map[string]string{
		"2030-01-01T11:01:00Z": "start 11:00 again 59m0.1s",
		"2030-01-01T11:05:00Z": "again 55m0.1s", // it is older than the deadline allows
	} {
		if got := show(decide(cj, nil, at(now))); got != want {
			t.Errorf("%s: %q, want %q", now, got, want)
		}
	}
}

// A job that the schedule made is taken for active though the status was lost;
// one that a person made is not.
func TestFollow(t *testing.T) {
	cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: batchv1.CronJobSpec{Schedule: "0 * * * *"}}
	cj.Status.Active = []corev1.ObjectReference{{Name: "gone", UID: "gone"}}
	made := jobFor(cj, at("2030-01-01T10:00:00Z"))
	made.UID = "made"
	by := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "by-hand", UID: "by-hand"}}
	suspend := true
	cj.Spec.Suspend = &suspend
	p := decide(cj, []*batchv1.Job{made, by}, at("2030-01-01T10:00:10Z"))
	if len(p.status.Active) != 1 || p.status.Active[0].UID != "made" {
		t.Errorf("active %v", p.status.Active)
	}
	if got, want := show(p), "UnexpectedJob MissingJob again 0s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
