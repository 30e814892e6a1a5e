package seeded

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/reconcile"
)

// deed is one thing that a component asks of the API server, or hears from it.
type deed struct {
	act act
	// by is the component's name within its life, "" when it is alone.
	by   string
	verb string
	at   target.Target
	// more tells apart what the rest does not: selectors, a path.
	more string
}

func (d deed) String() string {
	said := d.verb + " " + d.at.String() + d.more
	if d.by != "" {
		said = d.by + " " + said
	}
	return said
}

// doing is a deed without the object's name: who does what to which kind.
type doing struct{ who, verb, kind string }

// toll is how often something was done, and how often the seed let its component die
// instead.
type toll struct{ done, cut int }

// component names who does the deed: what lives alone is named by its life.
func component(life, by string) string {
	if by != "" {
		return by
	}
	who, _, _ := strings.Cut(life, " ")
	return who
}

// count keeps the tally of what components do, and looks at whether they said that
// they would.
func (w *world) count(t *ticket, v verdict) {
	if t.deed.act == hearing {
		return
	}
	who := component(t.who, t.deed.by)
	kind := t.deed.at.Resource.GroupResource().String()
	if t.deed.at.Subresource != "" {
		kind += "/" + t.deed.at.Subresource
	}
	d := doing{who, t.deed.verb, kind}
	sum := w.keys.tally[d]
	if sum == nil {
		sum = &toll{}
		w.keys.tally[d] = sum
		if !w.keys.declared.allow(who, t.deed) {
			w.keys.undeclared[d] = true
		}
	}
	if v == crash {
		sum.cut++
	} else {
		sum.done++
	}
}

// blame reports what components did in these lives without having declared it. It is no
// seed's fault, so no life ends by it.
func (k keys) blame(t *testing.T) {
	t.Helper()
	for _, d := range slices.SortedFunc(maps.Keys(k.undeclared), compareDoings) {
		what := fmt.Sprintf("%s does not declare that it may %s %s", d.who, d.verb, d.kind)
		t.Error(what)
	}
}

// bounds is what a component has declared.
type bounds struct {
	reads  map[schema.GroupResource]bool
	writes map[schema.GroupResource][]string
	// any is true for who reads every kind; all are the parts it writes of every kind.
	any bool
	all []string
}

// declarations are those of all components, by the name of their user.
type declarations map[string]*bounds

// newDeclarations asks all components, and fails when two own one part.
func newDeclarations() (declarations, error) {
	controllers, err := all.Declared()
	if err != nil {
		return nil, err
	}
	d := declarations{"mirrors": {reads: map[schema.GroupResource]bool{}, writes: map[schema.GroupResource][]string{}}}
	add := func(who string, reads []schema.GroupVersionResource, writes []reconcile.Write) *bounds {
		b := d[who]
		if b == nil {
			b = &bounds{reads: map[schema.GroupResource]bool{}, writes: map[schema.GroupResource][]string{}}
			d[who] = b
		}
		for _, r := range reads {
			b.reads[r.GroupResource()] = true
		}
		for _, w := range writes {
			b.writes[w.Resource.GroupResource()] = append(b.writes[w.Resource.GroupResource()], w.Part)
		}
		return b
	}
	for _, c := range controllers {
		for _, who := range c.Components {
			who = cmp.Or(who, "mirrors") // who acts in nobody's name does so as they read
			b := add(who, c.Reads, c.Writes)
			b.any, b.all = b.any || c.ReadsAll, append(b.all, c.WritesAll...)
		}
		for _, r := range c.Reads {
			d["mirrors"].reads[r.GroupResource()] = true
		}
	}
	add("scheduler", scheduler.Declaration{}.Reads(), scheduler.Declaration{}.Writes())
	add("agent", agent.Declaration{}.Reads(), agent.Declaration{}.Writes())
	books := client.ConfigMaps.GroupVersionResource
	add("scribe", []schema.GroupVersionResource{books}, []reconcile.Write{{Resource: books}})
	return d, nil
}

// partsOf are the parts of an object that writing a subresource changes, where the
// subresource is not called as they are.
var partsOf = map[string]string{
	"binding": "spec.nodeName", "scale": "spec.replicas", "approval": reconcile.Status,
	"finalize": reconcile.Spec, "eviction": reconcile.Delete, "token": "token",
}

// allow says whether a component has declared a deed.
func (d declarations) allow(who string, did deed) bool {
	b := d[who]
	switch {
	case b == nil:
		return false
	case did.at.Resource.Resource == "":
		return true // a path that is no kind's: metrics, discovery
	case did.act == reading:
		return b.any || b.reads[did.at.Resource.GroupResource()]
	}
	part := did.at.Subresource
	if other, ok := partsOf[part]; ok {
		part = other
	}
	return slices.ContainsFunc(slices.Concat(b.writes[did.at.Resource.GroupResource()], b.all), func(own string) bool {
		top, _, _ := strings.Cut(own, "[")
		top, _, _ = strings.Cut(top, ".")
		switch {
		case own == "":
			return true
		case part != "":
			return part == own || strings.HasPrefix(part, top)
		case did.verb == "create" || strings.HasPrefix(did.verb, "delete"):
			return strings.HasPrefix(did.verb, top)
		}
		return top != reconcile.Create && top != reconcile.Delete && top != reconcile.Status
	})
}

// tallyLine is how a child tells its parent what was done in its lives.
const tallyLine = "tally %q %q %q %d %d\n"

// lines are the tally as lines.
func tallied(tally map[doing]*toll) []string {
	var out []string
	for _, d := range slices.SortedFunc(maps.Keys(tally), compareDoings) {
		out = append(out, fmt.Sprintf(tallyLine, d.who, d.verb, d.kind, tally[d].done, tally[d].cut))
	}
	return out
}

// hearTally adds a line to a tally; false when it is none.
func hearTally(line string, tally map[doing]*toll) bool {
	var d doing
	var sum toll
	if _, err := fmt.Sscanf(line, tallyLine, &d.who, &d.verb, &d.kind, &sum.done, &sum.cut); err != nil {
		return false
	}
	if tally[d] == nil {
		tally[d] = &toll{}
	}
	tally[d].done += sum.done
	tally[d].cut += sum.cut
	return true
}

func compareDoings(a, b doing) int {
	return cmp.Or(strings.Compare(a.who, b.who), strings.Compare(a.kind, b.kind), strings.Compare(a.verb, b.verb))
}

// cuts sums up how often each component was cut short at a write, of how many.
func cuts(tally map[doing]*toll) map[string]toll {
	sums := map[string]toll{}
	for d, t := range tally {
		if d.verb == "get" || d.verb == "list" || d.verb == "watch" || d.verb == "ask" {
			continue
		}
		s := sums[d.who]
		sums[d.who] = toll{s.done + t.done, s.cut + t.cut}
	}
	return sums
}
