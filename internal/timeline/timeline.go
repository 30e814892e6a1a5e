// Package timeline remembers, for a bounded number of objects, what happened to
// each of them and when: the material of "sampan trace" and of half of
// "sampan why". Every component on a pod's path marks its own steps; nobody
// depends on a mark being there.
package timeline

import (
	"slices"
	"sync"
	"time"
)

// Limits of what is kept; the oldest subject is forgotten first.
const (
	// MaxSubjects bounds the objects remembered: at about 2 KiB each, 8 MiB.
	MaxSubjects = 4096
	// MaxMarks bounds the marks of one object; later ones replace the oldest
	// but never the first eight, which hold the object's creation.
	MaxMarks = 64
)

// A Step is a station of the path of a pod (DESIGN, section 2).
type Step int

// The five steps, in the order in which a pod meets them.
const (
	Request  Step = iota + 1 // the client's object has arrived
	Admit                    // authenticated, authorised, admitted, validated
	Store                    // one record in etcd
	Schedule                 // filtered, scored, bound
	Run                      // sandbox, network, image, container, status
)

// String is the step's name as trace prints it.
func (s Step) String() string {
	return [...]string{"?", "request", "admit", "store", "schedule", "run"}[min(max(int(s), 0), 5)]
}

// Mark is one thing that happened, with its duration. Times are wall-clock
// readings with their monotonic part, taken by the component that marks.
type Mark struct {
	Step Step `json:"step"`
	// Name is what was done, in two or three words: "run sandbox".
	Name string `json:"name"`
	// Detail is free text for a person; it may be empty.
	Detail string    `json:"detail,omitempty"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
}

// Recorder keeps marks. Its methods may be called from any goroutine, and on a
// nil Recorder, where they do nothing.
type Recorder struct {
	mu    sync.Mutex
	marks map[string][]Mark
	order []string
}

// New returns an empty Recorder.
func New() *Recorder { return &Recorder{marks: map[string][]Mark{}} }

// Mark adds m to what is known of subject: an object's UID.
func (r *Recorder) Mark(subject string, m Mark) {
	if r == nil || subject == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.marks[subject]
	if !ok {
		r.admit(subject)
	}
	if len(known) >= MaxMarks {
		known = slices.Delete(known, 8, 9)
	}
	r.marks[subject] = append(known, m)
}

// Replace puts m in the place of the mark with its name and start, or adds it: for
// what is still going on, with an End of zero. Without a Detail the mark goes away.
func (r *Recorder) Replace(subject string, m Mark) {
	if r == nil || subject == "" {
		return
	}
	r.mu.Lock()
	known := r.marks[subject]
	at := slices.IndexFunc(known, func(k Mark) bool { return k.Name == m.Name && k.Start.Equal(m.Start) })
	switch {
	case at >= 0 && m.Detail == "":
		r.marks[subject] = slices.Delete(slices.Clone(known), at, at+1)
	case at >= 0:
		known[at] = m
	}
	r.mu.Unlock()
	if at < 0 && m.Detail != "" {
		r.Mark(subject, m)
	}
}

// admit makes room for one more subject. The caller holds the lock.
func (r *Recorder) admit(subject string) {
	if len(r.order) >= MaxSubjects {
		delete(r.marks, r.order[0])
		r.order = r.order[1:]
	}
	r.order = append(r.order, subject)
}

// Of returns the marks of subject ordered by start; nil when none are known.
func (r *Recorder) Of(subject string) []Mark {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	marks := slices.Clone(r.marks[subject])
	slices.SortStableFunc(marks, func(a, b Mark) int { return a.Start.Compare(b.Start) })
	return marks
}
