package flow

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Debug are the pages that tell how things stand, by path: upstream's, for
// people.
func (o *Order) Debug() map[string]http.Handler {
	const below = "/debug/api_priority_and_fairness/"
	return map[string]http.Handler{
		below + "dump_priority_levels": o.page(o.dumpLevels),
		below + "dump_queues":          o.page(o.dumpQueues),
		below + "dump_requests":        o.page(o.dumpRequests),
	}
}

func (o *Order) page(dump func(row func(cells ...string), details bool)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		t := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
		dump(func(cells ...string) { _, _ = io.WriteString(t, strings.Join(cells, ",\t")+"\n") },
			r.URL.Query().Get("includeRequestDetails") != "")
		_ = t.Flush() // fails only when the client has gone
	})
}

// each calls f for every level by name, with its lock held.
func (o *Order) each(f func(l *level)) {
	p := o.plan.Load()
	for _, name := range slices.Sorted(maps.Keys(p.levels)) {
		l := p.levels[name]
		l.mu.Lock()
		f(l)
		l.mu.Unlock()
	}
}

func (o *Order) dumpLevels(row func(...string), _ bool) {
	row("PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
		"DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests")
	o.each(func(l *level) {
		active := 0
		for _, q := range l.busy {
			if len(q.line) > 0 {
				active++
			}
		}
		row(l.name, strconv.Itoa(active), strconv.FormatBool(l.held == 0 && l.waiting == 0), "false", strconv.Itoa(l.waiting),
			strconv.Itoa(l.running), strconv.Itoa(l.counted.dispatched), strconv.Itoa(l.counted.rejected),
			strconv.Itoa(l.counted.timedOut), strconv.Itoa(l.counted.cancelled))
	})
}

func (o *Order) dumpQueues(row func(...string), _ bool) {
	row("PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
		"InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum")
	o.each(func(l *level) {
		for _, i := range slices.Sorted(maps.Keys(l.busy)) {
			q := l.busy[i]
			initial, most := 0, 0
			for _, t := range q.line {
				initial += t.work.seats
				most += max(t.work.seats, t.work.finalSeats)
			}
			row(l.name, strconv.Itoa(i), strconv.Itoa(len(q.line)), strconv.Itoa(q.running), strconv.Itoa(q.seats),
				fmt.Sprintf("%.8fss", q.next), strconv.Itoa(initial), strconv.Itoa(most), fmt.Sprintf("%.8fss", float64(initial)*guess))
		}
	})
}

// dumpRequests tells the waiting requests. Running ones are counted above, not
// kept.
func (o *Order) dumpRequests(row func(...string), details bool) {
	head := []string{"PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
		"InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime"}
	if details {
		head = append(head, "UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
	}
	row(head...)
	o.each(func(l *level) {
		for _, i := range slices.Sorted(maps.Keys(l.busy)) {
			for n, t := range l.busy[i].line {
				cells := []string{l.name, t.schema.name, strconv.Itoa(i), strconv.Itoa(n), t.about, t.came.UTC().Format(time.RFC3339Nano),
					strconv.Itoa(t.work.seats), strconv.Itoa(t.work.finalSeats), t.work.after.String(), time.Time{}.Format(time.RFC3339Nano)}
				if details {
					at := t.req.asked.Target
					cells = append(cells, t.req.user.Name, t.req.asked.Verb, t.req.path, t.req.namespace, t.req.name,
						at.Resource.GroupVersion().String(), at.Resource.Resource, at.Subresource)
				}
				row(cells...)
			}
		}
	})
}
