package endpointslice

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodesOf reads nodes, each a zone and its CPUs: "a2 b1". "?" is no zone, "!" after it
// says not ready, "^" that the node is of the control plane.
func nodesOf(text string) []*corev1.Node {
	var all []*corev1.Node
	for i, word := range strings.Fields(text) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), Labels: map[string]string{corev1.LabelTopologyZone: word[:1]}}}
		if word[0] == '?' {
			n.Labels = map[string]string{}
		}
		ready := corev1.ConditionTrue
		if strings.HasSuffix(word, "!") {
			ready = corev1.ConditionFalse
		}
		if strings.HasSuffix(word, "^") {
			n.Labels["node-role.kubernetes.io/control-plane"] = ""
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(strings.TrimRight(word[1:], "!^"))}
		all = append(all, n)
	}
	return all
}

func TestSharesOf(t *testing.T) {
	for _, c := range []struct{ nodes, want string }{
		{"", ""},
		{"a1", ""},
		{"a1 a1", ""},
		{"a1 b1", "a 50, b 50"},
		{"a1! b1", ""},
		{"a1 b1^", ""},
		{"a1 b1 b1!", "a 50, b 50"},
		{"a1 b1 b1^", "a 50, b 50"},
		{"a1 b1 ?1", ""},
		{"a1 b1 ?1^", "a 50, b 50"},
		{"a1 b1 c0", ""},
		{"a1 a1 a1 a2 b3 b1500m c500m", "a 50, b 45, c 5"},
	} {
		shares := sharesOf(nodesOf(c.nodes))
		var words []string
		for _, zone := range slices.Sorted(maps.Keys(shares)) {
			words = append(words, fmt.Sprintf("%s %.0f", zone, 100*shares[zone]))
		}
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("%q: %q, want %q", c.nodes, got, c.want)
		}
	}
}

func TestMoves(t *testing.T) {
	for _, c := range []struct {
		name         string
		want         string // what zones should have
		given        map[string]int
		gives, takes string
	}{
		{"nothing", "", nil, "map[]", "map[]"},
		{"near enough", "a1.2 b1.1 c1.0", map[string]int{"a": 1, "b": 1, "c": 1}, "map[]", "map[]"},
		{"one more would be a little fairer, but not in its zone", "a5.1 b5.1 c5.8", map[string]int{"a": 16}, "map[a:10]", "map[b:5 c:5]"},
		{"two lack less than one: that which lacks most", "a5 b5.6 c5.4", map[string]int{"a": 16}, "map[a:11]", "map[b:6 c:5]"},
		{"two have too many: that which has most", "a5 b5.6 c5.4", map[string]int{"b": 8, "c": 8}, "map[b:2 c:3]", "map[a:5]"},
		{"more than there should be", "a5 b5 c5", map[string]int{"a": 6, "b": 6, "c": 6}, "map[]", "map[]"},
	} {
		want := map[string]quota{}
		for _, word := range strings.Fields(c.want) {
			var n float64
			if _, err := fmt.Sscan(word[1:], &n); err != nil {
				t.Fatal(err)
			}
			want[word[:1]] = quota{want: n}
		}
		gives, takes := moves(want, c.given)
		if fmt.Sprint(gives) != c.gives || fmt.Sprint(takes) != c.takes {
			t.Errorf("%s: gives %v takes %v, want %s and %s", c.name, gives, takes, c.gives, c.takes)
		}
	}
}

// spreadPods are ready pods in the zones named by letters; "-" after one says not
// ready, "?" is a node without a zone.
func spreadPods(text string) []*corev1.Pod {
	pods := podsOf(strings.Repeat("+", len(strings.ReplaceAll(text, "-", ""))))
	i := 0
	for _, how := range text {
		if how == '-' {
			pods[i-1].Status.Conditions[0].Status = corev1.ConditionFalse
			continue
		}
		pods[i].Spec.NodeName = string(how)
		i++
	}
	return pods
}

// hinted says of each endpoint where it is and whose it is: "a" in zone a for zone a,
// "ab" in a for b, "a." in a without a hint, "a*" in a for its node and zone.
func hinted(all []*discoveryv1.EndpointSlice) string {
	var words []string
	for _, s := range all {
		for _, e := range s.Endpoints {
			word := "?"
			if e.Zone != nil {
				word = *e.Zone
			}
			switch {
			case e.Hints == nil:
				word += "."
			case len(e.Hints.ForNodes) > 0 && e.Hints.ForNodes[0].Name == *e.NodeName && (e.Zone == nil) == (e.Hints.ForZones == nil):
				word += "*"
			case e.Hints.ForZones[0].Name != word:
				word += e.Hints.ForZones[0].Name
			}
			words = append(words, word)
		}
		words = append(words, "|")
	}
	return strings.TrimSuffix(strings.Join(words, " "), " |")
}

func TestHints(t *testing.T) {
	zone := func(node string) (string, bool) { return strings.Trim(node, "?"), true }
	asked := func(mode string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations = map[string]string{corev1.AnnotationTopologyMode: mode} }
	}
	auto := asked("Auto")
	prefer := func(how string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.TrafficDistribution = &how }
	}
	old := func(s *corev1.Service) {
		s.Annotations = map[string]string{corev1.DeprecatedAnnotationTopologyAwareHints: "auto", corev1.AnnotationTopologyMode: "disabled"}
	}
	for _, c := range []struct {
		name  string
		svc   []func(*corev1.Service)
		nodes string
		pods  string
		want  string
		why   string // "-": nobody asked
	}{
		{"nobody asks", nil, "a1 b1", "ab", "a. b.", "-"},
		{"close", []func(*corev1.Service){prefer("PreferClose")}, "", "ab?b-", "a b ?. b.", "-"},
		{"same zone", []func(*corev1.Service){prefer("PreferSameZone")}, "", "ab", "a b", "-"},
		{"same node", []func(*corev1.Service){prefer("PreferSameNode")}, "", "a?b-", "a* ?* b.", "-"},
		{"another word", []func(*corev1.Service){prefer("example.com/Far")}, "", "ab", "a. b.", "-"},
		{"the annotation comes first", []func(*corev1.Service){auto, prefer("PreferSameNode")}, "a1 b1", "ab", "a b", ""},
		{"and where it cannot be, nothing does", []func(*corev1.Service){auto, prefer("PreferSameNode")}, "", "ab", "a. b.", fewFacts},
		{"written small", []func(*corev1.Service){asked("auto")}, "a1 b1", "ab", "a b", ""},
		{"written otherwise", []func(*corev1.Service){asked("aUto")}, "a1 b1", "ab", "a. b.", "-"},
		{"switched off, the other way asked", []func(*corev1.Service){asked("Disabled"), prefer("PreferClose")}, "a1 b1", "ab", "a b", "-"},
		{"by the old name, which goes first", []func(*corev1.Service){old}, "a1 b1", "ab", "a b", ""},

		{"no nodes", []func(*corev1.Service){auto}, "", "a", "a.", fewFacts},
		{"one zone", []func(*corev1.Service){auto}, "a1 a1", "aa", "a. a.", fewFacts},
		{"fewer than zones", []func(*corev1.Service){auto}, "a3 b4 c3", "ab", "a. b.", fewEndpoints + " (2 endpoints, 3 zones)"},
		{"as many as zones", []func(*corev1.Service){auto}, "a45 b55", "ab", "a b", ""},
		{"only those that are ready count", []func(*corev1.Service){auto}, "a45 b55", "abb-b-", "a b b. b.", ""},
		{"not enough for what zones differ by", []func(*corev1.Service){auto}, "a1 b4", "ab", "a. b.", tooUneven + " (2 endpoints, 2 zones)"},
		{"a number that no share fits", []func(*corev1.Service){auto}, "a1 b1", "aab", "a. a. b.", tooUneven + " (3 endpoints, 2 zones)"},
		{"three zones, one gives", []func(*corev1.Service){auto}, "a35 b35 c30", "abccaaabca", "ab a b c c a a a b c", ""},
		{"all in one", []func(*corev1.Service){auto}, "a1 b1", "aaaa", "ab ab a a", ""},
		{"one without a zone", []func(*corev1.Service){auto}, "a1 b1", "ab?a", "a. b. ?. a.", unplaced},
		{"in a zone where no node is ready", []func(*corev1.Service){auto}, "a1 b1 c1!", "aabbcc", "a a b b c c", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc, pods := serviceOfTest("1", c.svc...), spreadPods(c.pods)
			at := places{zone: zone, shares: sharesOf(nodesOf(c.nodes))}
			p := decide(svc, pods, nil, at)
			why, ok := p.hints[discoveryv1.AddressTypeIPv4]
			if !ok {
				why = "-"
			}
			if got := hinted(p.create); got != c.want || string(why) != c.why {
				t.Errorf("%s, %q\nwant %s, %q", got, why, c.want, c.why)
			}
			if again := decide(svc, pods, stored(p.create), at); len(again.create)+len(again.update)+len(again.remove) > 0 {
				t.Errorf("the same again: %s", again.told())
			}
		})
	}
}

// Hints that are there stay as long as every zone may still have what it has, and go
// with who asked for them.
func TestHintsStay(t *testing.T) {
	auto := serviceOfTest("1", func(s *corev1.Service) { s.Annotations = map[string]string{corev1.AnnotationTopologyMode: "Auto"} })
	at := func(nodes string) places {
		return places{zone: func(node string) (string, bool) { return node, true }, shares: sharesOf(nodesOf(nodes))}
	}
	text := strings.Repeat("ab", 75) // one slice of 100, one of 50
	have := stored(decide(auto, spreadPods(text), nil, at("a1 b1")).create)
	for _, c := range []struct {
		name, nodes, pods string
		svc               *corev1.Service
		want              string
	}{
		{"the nodes differ a little", "a11 b10", text, auto, ""},
		{"the nodes differ much: what is over is dealt anew", "a3 b1", text, auto, "s1"},
		{"a zone less", "a1", text, auto, "s0 s1"},
		{"a zone more", "a1 b1 c1", text, auto, "s1"},
		{"nobody asks any more", "a1 b1", text, serviceOfTest("1"), "s0 s1"},
		{"one pod more, and only where it is", "a1 b1", text + "a", auto, "s1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pods, now := spreadPods(c.pods), slices.Clone(have)
			var changed string
			for range 4 { // it comes to rest
				p := decide(c.svc, pods, now, at(c.nodes))
				changed = ""
				for _, s := range p.update {
					changed += " " + s.Name
					now[slices.IndexFunc(now, func(old *discoveryv1.EndpointSlice) bool { return old.Name == s.Name })] = s
				}
				if got := strings.TrimSpace(changed); got != c.want {
					t.Errorf("changes %q, want %q", got, c.want)
				}
				c.want = ""
			}
		})
	}
}
