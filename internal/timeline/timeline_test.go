package timeline

import (
	"slices"
	"testing"
	"time"
)

// What still goes on has one mark, which is replaced, and goes.
func TestReplace(t *testing.T) {
	r := New()
	start := time.Unix(100, 0)
	r.Mark("a", Mark{Step: Run, Name: "other", Start: start})
	for _, detail := range []string{"10 of 20", "15 of 20"} {
		r.Replace("a", Mark{Step: Run, Name: "pull", Start: start, Detail: detail})
	}
	r.Replace("a", Mark{Step: Run, Name: "pull", Start: start.Add(time.Second), Detail: "second"})
	var details []string
	for _, m := range r.Of("a") {
		details = append(details, m.Name+" "+m.Detail)
	}
	if want := []string{"other ", "pull 15 of 20", "pull second"}; !slices.Equal(details, want) {
		t.Errorf("marks %q, want %q", details, want)
	}
	r.Replace("a", Mark{Step: Run, Name: "pull", Start: start})
	r.Replace("a", Mark{Step: Run, Name: "never", Start: start})
	if got := r.Of("a"); len(got) != 2 || got[1].Detail != "second" {
		t.Errorf("after its end: %+v", got)
	}
}
