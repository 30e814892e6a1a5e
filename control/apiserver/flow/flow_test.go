package flow

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	kinds "github.com/sampan-dev/sampan/kinds/flowcontrol"
)

// asks reads test paths: "/api/v1/[namespaces/<ns>/]<resource>[/<name>]".
func asks(r *http.Request) resource.Asked {
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	if !ok {
		return resource.Asked{Verb: strings.ToLower(r.Method)}
	}
	var t target.Target
	parts := strings.Split(rest, "/")
	if len(parts) > 2 && parts[0] == "namespaces" {
		t.Namespace, parts = parts[1], parts[2:]
	}
	t.Resource = schema.GroupVersionResource{Version: "v1", Resource: parts[0]}
	if parts[0] == "leases" {
		t.Resource.Group = "coordination.k8s.io"
	}
	verb := "list"
	if len(parts) > 1 {
		t.Name, verb = parts[1], "get"
	}
	if len(parts) > 2 {
		t.Subresource = parts[2]
	}
	if v := r.URL.Query().Get("verb"); v != "" {
		verb = v
	}
	return resource.Asked{Verb: verb, Target: t, Resource: true}
}

// order knows all the first objects; every resource has objects of 10 kB.
func order(seats int, objects int64) *Order {
	o := New(Config{Seats: seats, Asks: asks, Stored: func(schema.GroupVersionResource) (int64, int64, bool) { return objects, 10_000, true }})
	must, may := kinds.Mandatory(), kinds.Suggested()
	o.digest(append(must.Levels, may.Levels...), append(must.Schemas, may.Schemas...))
	return o
}

func who(name string, groups ...string) identity.Identity {
	return identity.Identity{Name: name, Groups: append(groups, identity.Authenticated)}
}

func ask(who identity.Identity, path string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	return r.WithContext(identity.With(r.Context(), who))
}

func TestClassify(t *testing.T) {
	o := order(0, 0)
	account := func(ns, name string) identity.Identity { return identity.ServiceAccount(ns, name, "") }
	for _, c := range []struct {
		who        identity.Identity
		path, want string
	}{
		{who("admin", identity.Masters), "/api/v1/pods", "exempt exempt "},
		{who("admin", identity.Masters), "/metrics", "exempt exempt "},
		{who("alice"), "/api/v1/namespaces/x/pods", "global-default global-default alice"},
		{who("alice"), "/healthz", "probes exempt "},
		{who("alice"), "/livez/etcd", "probes exempt "},
		{who("alice"), "/livezzz", "global-default global-default alice"},
		{who("alice"), "/version", "global-default global-default alice"},
		{identity.Identity{Name: identity.Anonymous, Groups: []string{identity.Unauthenticated}}, "/api", "global-default global-default system:anonymous"},
		{identity.Identity{Name: "nobody"}, "/api", "catch-all catch-all nobody"},
		{who("system:node:a", identity.Nodes), "/api/v1/nodes/a/status?verb=patch", "system-node-high node-high system:node:a"},
		{who("system:node:a", identity.Nodes), "/api/v1/nodes/a/proxy", "system-nodes system system:node:a"},
		{who("system:node:a", identity.Nodes), "/api/v1/namespaces/kube-node-lease/leases/a?verb=update", "system-node-high node-high system:node:a"},
		{who("system:node:a", identity.Nodes), "/api/v1/pods", "system-nodes system system:node:a"},
		{account("kube-system", "x"), "/api/v1/namespaces/kube-system/leases/x?verb=update", "system-leader-election leader-election system:serviceaccount:kube-system:x"},
		{account("kube-system", "x"), "/api/v1/namespaces/kube-system/leases/x?verb=delete", "kube-system-service-accounts workload-high kube-system"},
		{account("kube-systems", "x"), "/api/v1/namespaces/a/pods", "service-accounts workload-low system:serviceaccount:kube-systems:x"},
		{who("system:kube-scheduler"), "/api/v1/namespaces/a/pods/b/binding?verb=create", "kube-scheduler workload-high a"},
		{who("system:kube-controller-manager"), "/api/v1/namespaces/a", "kube-controller-manager workload-high a"},
	} {
		r := ask(c.who, c.path)
		req, _ := describe(asks(r), c.who, r)
		s := o.plan.Load().classify(req)
		_, about := s.flow(req)
		if got := s.name + " " + s.level.name + " " + about; got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.who.Name, c.path, got, c.want)
		}
	}
}

// Upstream's server with its default flags has these very seats.
func TestSharesAreUpstreams(t *testing.T) {
	o := order(600, 0)
	want := map[string][3]int{"system": {74, 50, 674}, "node-high": {98, 73, 698}, "leader-election": {25, 25, 625},
		"workload-high": {98, 49, 698}, "workload-low": {245, 24, 845}, "global-default": {49, 24, 649}, "catch-all": {13, 13, 613}, "exempt": {0, 0, 600}}
	for name, l := range o.plan.Load().levels {
		if got := [3]int{l.nominal, l.lower, l.upper}; got != want[name] {
			t.Errorf("%s: nominal, lower, upper %v, want %v", name, got, want[name])
		}
	}
}

func TestHandsAreDealt(t *testing.T) {
	seen := map[string]int{}
	for i := range 2000 {
		h := hash(1, fmt.Sprint("user", i))
		hand := deal(nil, h, 16, 4)
		if !slices.Equal(hand, deal(nil, h, 16, 4)) {
			t.Fatal("a hand is not the same twice")
		}
		if len(slices.Compact(slices.Clone(hand))) != 4 || !slices.IsSorted(hand) || hand[0] < 0 || hand[3] > 15 {
			t.Fatalf("hand %v", hand)
		}
		for _, card := range hand {
			seen[fmt.Sprint(card)]++
		}
	}
	for card, n := range seen {
		if n < 400 || n > 600 { // 500 is even
			t.Errorf("card %s was dealt %d times of 2000 hands", card, n)
		}
	}
}

// slow is a handler that takes d and counts by user.
type slow struct {
	d         time.Duration
	mu        sync.Mutex
	done      []string
	now, most int
}

func (s *slow) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	id, _ := identity.From(r.Context())
	s.mu.Lock()
	s.now++
	s.most = max(s.most, s.now)
	s.mu.Unlock()
	time.Sleep(s.d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	s.done = append(s.done, id.Name)
}

// run starts Run's part that lends seats.
func lend(t *testing.T, o *Order) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = o.lending(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

// A flow that sends a lot does not delay one that sends a little.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(25, 0) // global-default has 3 seats
		s := &slow{d: 100 * time.Millisecond}
		h := o.Handler(s)
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), ask(who("greedy"), "/api/v1/namespaces/a/pods/x")) })
		}
		synctest.Wait()
		for range 6 {
			wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), ask(who("modest"), "/api/v1/namespaces/a/pods/x")) })
		}
		wg.Wait()
		last := 0
		for i, name := range s.done {
			if name == "modest" {
				last = i
			}
		}
		if len(s.done) != 66 || last > 40 {
			t.Errorf("of %d requests the modest user's last was number %d: %v", len(s.done), last, s.done)
		}
	})
}

// A storm of lists keeps its seats, and nobody exempt waits for it.
func TestListStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(600, 10_000)
		lend(t, o)
		s := &slow{d: time.Second}
		h := o.Handler(s)
		var wg sync.WaitGroup
		codes := make(chan int, 200)
		for i := range 200 {
			wg.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, ask(who(fmt.Sprint("user", i)), "/api/v1/pods"))
				codes <- w.Code
			})
		}
		synctest.Wait()
		if held := s.now * 8; held > 600 || held < 16 {
			t.Errorf("%d lists run at once", s.now)
		}
		begin := time.Now()
		o.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).
			ServeHTTP(httptest.NewRecorder(), ask(who("admin", identity.Masters), "/api/v1/namespaces/a/pods/x"))
		if took := time.Since(begin); took > 0 {
			t.Errorf("the administrator's GET took %v", took)
		}
		wg.Wait()
		close(codes)
		served := 0
		for c := range codes {
			if c == http.StatusOK {
				served++
			}
		}
		if served < 150 || s.most > 75 {
			t.Errorf("%d of 200 lists were served, at most %d at once", served, s.most)
		}
	})
}

// Who finds the queues full is sent away; who waits too long, too.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(13, 0) // catch-all has one seat and no queue; global-default two
		s := &slow{d: 20 * time.Second}
		h := o.Handler(s)
		var wg sync.WaitGroup
		nobody := identity.Identity{Name: "nobody"}
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), ask(nobody, "/x")) })
		synctest.Wait()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, ask(nobody, "/x"))
		if w.Code != http.StatusTooManyRequests || w.Body.String() != "Too many requests, please try again later.\n" || w.Header().Get("Retry-After") != "1" {
			t.Errorf("got %d %q, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
		}
		begin := time.Now()
		codes := map[int]int{}
		var mu sync.Mutex
		for range 400 { // six queues of fifty, and what runs
			wg.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, ask(who("alice"), "/api/v1/namespaces/a/pods/x"))
				mu.Lock()
				defer mu.Unlock()
				codes[w.Code]++
				if w.Code == http.StatusTooManyRequests && time.Since(begin) > 0 && time.Since(begin) != MaxWait {
					t.Errorf("refused after %v", time.Since(begin))
				}
			})
		}
		synctest.Wait()
		l := o.plan.Load().levels["global-default"]
		l.mu.Lock()
		waiting, rejected := l.waiting, l.counted.rejected
		l.mu.Unlock()
		if waiting != 300 || rejected != 400-300-l.limit {
			t.Errorf("%d wait, %d are refused, %d seats", waiting, rejected, l.limit)
		}
		wg.Wait()
		if l.counted.timedOut != 300 {
			t.Errorf("%d gave up", l.counted.timedOut)
		}
		if len(l.busy) != 0 || l.held != 0 || l.waitingSeats != 0 {
			t.Errorf("the idle level is not empty: %+v", l)
		}
	})
}

// A cancelled request leaves its place to others.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(13, 0)
		h := o.Handler(&slow{d: time.Second})
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			wg.Go(func() {
				h.ServeHTTP(httptest.NewRecorder(), ask(who("a"), "/api/v1/namespaces/a/pods/x").WithContext(identity.With(ctx, who("a"))))
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		l := o.plan.Load().levels["global-default"]
		if l.counted.cancelled != 10-l.counted.dispatched || l.counted.cancelled == 0 || l.waiting != 0 || l.held != 0 {
			t.Errorf("%+v waiting %d held %d", l.counted, l.waiting, l.held)
		}
	})
}

// A pressed level borrows what others do not need, and gives it back.
func TestBorrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(600, 0)
		lend(t, o)
		l := o.plan.Load().levels["global-default"]
		rest := l.limit
		s := &slow{d: time.Second}
		h := o.Handler(s)
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				h.ServeHTTP(httptest.NewRecorder(), ask(who(fmt.Sprint("u", i)), "/api/v1/namespaces/a/pods/x"))
			})
		}
		wg.Wait()
		if s.most <= 49 {
			t.Errorf("at most %d at once: nothing was borrowed", s.most)
		}
		total := 0
		for name, other := range o.plan.Load().levels {
			if other.limit < other.lower {
				t.Errorf("%s has %d seats, less than its least, %d", name, other.limit, other.lower)
			}
			total += other.limit
		}
		if total > o.plan.Load().sum+8 {
			t.Errorf("%d seats are given out of %d", total, o.plan.Load().sum)
		}
		time.Sleep(2 * time.Minute)
		if l.limit != rest {
			t.Errorf("after the storm %d seats, not %d", l.limit, rest)
		}
	})
}

// A watch gives its seat back when it has begun; writes pay for watchers.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := order(600, 100)
		l := o.plan.Load().levels["global-default"]
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		begin := make(chan struct{})
		h := o.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-begin
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
		}))
		for range 25 {
			wg.Go(func() {
				r := ask(who("a"), "/api/v1/namespaces/x/pods?verb=watch&resourceVersion=5")
				h.ServeHTTP(httptest.NewRecorder(), r.WithContext(identity.With(ctx, who("a"))))
			})
		}
		synctest.Wait()
		if l.held != 25 {
			t.Errorf("watches that begin hold %d seats", l.held)
		}
		close(begin)
		synctest.Wait()
		if l.held != 0 {
			t.Errorf("watches that have begun hold %d seats", l.held)
		}
		r := ask(who("a"), "/api/v1/namespaces/x/pods/p?verb=update")
		req, query := describe(asks(r), who("a"), r)
		if got, want := o.estimate(req, query, l), (work{seats: 3, finalSeats: 3, after: eventTime}); got != want {
			t.Errorf("a write for 25 watchers: %+v, want %+v", got, want)
		}
		cancel()
		wg.Wait()
		if got := o.estimate(req, query, l); got.seats != 1 || len(o.watches.counts) != 0 {
			t.Errorf("a write for nobody: %+v", got)
		}
	})
}

func TestEstimateOfLists(t *testing.T) {
	o := order(600, 10_000)
	for path, want := range map[string]int{
		"/api/v1/pods": 8, "/api/v1/pods?limit=10": 1, "/api/v1/pods?limit=35": 4, "/api/v1/namespaces/a/pods/x": 1,
		"/api/v1/pods?fieldSelector=metadata.name%3Dx": 1, "/api/v1/pods?verb=watch": 8, "/api/v1/pods?verb=watch&resourceVersion=0": 8,
		"/api/v1/pods?verb=watch&resourceVersion=7": 1, "/api/v1/pods?verb=watch&resourceVersion=7&sendInitialEvents=true": 8,
	} {
		r := ask(who("a"), path)
		req, query := describe(asks(r), who("a"), r)
		if got := o.estimate(req, query, o.plan.Load().levels["global-default"]).seats; got != want {
			t.Errorf("%s: %d seats, want %d", path, got, want)
		}
	}
}

// Refusals second after second make clients stay away longer, quiet ones less.
func TestRetryAfter(t *testing.T) {
	r := retryAfter{wait: 1}
	for second := range int64(40) {
		for range 100 {
			r.drop(1000 + second)
		}
	}
	if r.wait != maxRetryAfter {
		t.Errorf("after 40 bad seconds: %d s", r.wait)
	}
	for second := range int64(40) {
		r.drop(2000 + 40*second)
	}
	if r.wait != 1 {
		t.Errorf("after a quiet time: %d s", r.wait)
	}
}

// A level that is gone or new takes nobody's place away.
func TestDigest(t *testing.T) {
	o := order(600, 0)
	before := o.plan.Load().levels["system"]
	must, may := kinds.Mandatory(), kinds.Suggested()
	bad := may.Schemas[0].DeepCopy()
	bad.Name, bad.Spec.MatchingPrecedence, bad.Spec.PriorityLevelConfiguration.Name = "bad", 2, "missing"
	o.digest(may.Levels, append([]*flowcontrolv1.FlowSchema{bad}, may.Schemas...))
	p := o.plan.Load()
	if p.levels["system"] != before || p.levels["exempt"] == nil || len(p.schemas) != len(must.Schemas)+len(may.Schemas) {
		t.Errorf("plan has %d schemas, levels %v", len(p.schemas), p.levels)
	}
	o.digest(nil, nil)
	if p := o.plan.Load(); len(p.levels) != 2 || len(p.schemas) != 2 {
		t.Errorf("what is mandatory is not imagined: %+v", p)
	}
}

func BenchmarkHandler(b *testing.B) {
	o := order(600, 10)
	h := o.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w, r := httptest.NewRecorder(), ask(who("alice"), "/api/v1/namespaces/a/pods/x")
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
