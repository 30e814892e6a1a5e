package seeded

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	names "k8s.io/apimachinery/pkg/util/rand"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/controller"
	controllers "github.com/sampan-dev/sampan/control/controller/all"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
	kindtable "github.com/sampan-dev/sampan/kinds/all"
)

// manyShapes is how many shapes of writes all lives together remember. They have more
// of them than one cluster, for each life has its own troubles.
const manyShapes = 1 << 15

// Times of a life, all false.
const (
	// busy is how long things are asked for and trouble is made.
	busy = 4 * time.Minute
	// calm is how long the cluster then has to become what was asked for. It is
	// longer than a node's silence takes to have all its consequences.
	calm = 10 * time.Minute
	// restartAfter is how long a crashed component stays away.
	restartAfter = 3 * time.Second
	// maxSteps bounds one life.
	maxSteps = 200_000
)

// keys are what lives share: the keys, for making them is the slowest part of a
// start, and what servers have found out about the owners of fields, which is the
// same for all.
type keys struct {
	authority *pki.Authority
	tokens    *pki.TokenKey
	verdicts  *resource.Verdicts
	declared  declarations
	// tally is what components did; undeclared is what of it they had not declared.
	tally      map[doing]*toll
	undeclared map[doing]bool
	kinds      []*kinds.Kind
	fields     map[string][]string // by a record of owners, those that it names
	requests   map[string][]byte   // for certificates, by whose
}

func newKeys(t *testing.T) keys {
	dir := t.TempDir()
	authority, err := pki.Open(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := pki.OpenTokenKey(filepath.Join(dir, "tokens.key"))
	if err != nil {
		t.Fatal(err)
	}
	declared, err := newDeclarations()
	if err != nil {
		t.Fatal(err)
	}
	return keys{authority: authority, tokens: tokens, verdicts: &resource.Verdicts{Most: manyShapes}, declared: declared, tally: map[doing]*toll{},
		undeclared: map[doing]bool{}, kinds: kindtable.Kinds(), fields: map[string][]string{}, requests: map[string][]byte{}}
}

// administrator is who does what people do.
const administrator = "admin"

// plan is one thing that the world will do.
type plan struct {
	at   time.Time
	n    int
	name string
	do   func()
}

// world is one life of a cluster.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	trouble trouble
	keys    keys
	dir     string
	log     *slog.Logger

	objects *slowStore
	server  atomic.Pointer[apiserver.Server] // nil while there is none
	halt    func()                           // ends the API servers
	pair    pair
	admin   client.Transport
	gate    *gate
	oracle  *oracle
	nodes   []*machine
	lives   map[string]*life
	agenda  []plan
	begin   time.Time
	steps   int
	plans   int
	over    bool   // trouble is over
	acting  string // the life whose deed happens now
	// rivals says that two schedulers have been at work: what they promise together a
	// node may refuse.
	rivals bool
	load   load
	// ranges says that nodes are given ranges of addresses.
	ranges bool
	// old says that the life lasts for years.
	old     bool
	tallies tallies
	doomed  []string // disks that are to go

	mu    sync.Mutex
	acked []acknowledged
	trace []string
	wrong []string
}

// acknowledged is a write that somebody was told has happened.
type acknowledged struct {
	what     string
	uid      string
	revision int64
}

// roomEnv names the directory for the files of a process that another has started, which
// removes it: a mutation may end a process before it does.
const roomEnv = "SAMPAN_SEED_ROOM"

// room is where lives keep their files. Agents look at how full their disk is, and a
// disk that happens to be nearly full is no part of a seed: memory is preferred.
func room() string {
	if given := os.Getenv(roomEnv); given != "" {
		return given
	}
	const memory = "/dev/shm"
	if probe, err := os.MkdirTemp(memory, "sampan-seed"); err == nil {
		_ = os.Remove(probe)
		return memory
	}
	return ""
}

// live lives the life of a seed and returns its trace and what was wrong.
func live(t *testing.T, seed uint64, k keys) (trace, wrong []string) {
	dir, err := os.MkdirTemp(room(), "sampan-seed")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	defer watchdog(seed).Stop()
	// Names and UIDs are the seed's too.
	uuid.SetRand(&source{dice: rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})})
	defer uuid.SetRand(nil)
	names.Seed(int64(seed)) //nolint:gosec // any number will do
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), keys: k, dir: dir, gate: newGate(seed),
			lives: map[string]*life{}, begin: time.Now()}
		w.trouble = profiles[int(seed)%len(profiles)]
		w.log = slog.New(slog.DiscardHandler)
		if testing.Verbose() {
			w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		}
		w.run()
		trace, wrong = w.trace, w.wrong
	})
	return trace, wrong
}

// source gives random bytes to any goroutine.
type source struct {
	mu   sync.Mutex
	dice *rand.ChaCha8
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dice.Read(p)
}

// run starts everything, lives, and ends everything.
func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	w.objects = &slowStore{Store: memory.New(memory.Config{})}
	odds := rand.New(rand.NewPCG(w.seed, 3))
	w.ranges, w.old = odds.IntN(officeOdds) == 0, odds.IntN(nightOdds) == 0
	w.pair.there = odds.IntN(pairOdds) == 0
	w.admin = door{w, identity.Identity{Name: administrator, Groups: []string{identity.Masters, identity.Authenticated}}}
	w.oracle = newOracle(ctx, w)
	w.serve()
	w.startControllers("controllers")
	w.startScheduler("scheduler")
	for i := range 3 {
		w.addNode(fmt.Sprintf("n%d", i))
	}
	w.until(w.now(5 * time.Second))
	w.script()
	if len(w.wrong) == 0 {
		w.until(w.now(busy))
	}
	w.recover()
	w.oracle.checkHistory(ctx)
	if len(w.wrong) == 0 {
		w.until(w.now(calm))
		w.oracle.final(ctx)
	}
	if len(w.wrong) == 0 {
		w.nights(ctx)
	}
	w.afresh(ctx)
	w.gate.release()
	for _, l := range w.lives {
		l.kill()
		<-l.done
	}
	for _, m := range w.nodes {
		m.engine.Close()
	}
	stop()
	w.halt()
	_ = w.objects.Close()
}

// serve starts the API server over what there is, or both of them, and waits until they
// are ready.
func (w *world) serve() {
	ctx, stop := context.WithCancel(context.Background())
	server, ended := w.newServer(ctx)
	w.halt = func() {
		w.pair.part()
		w.server.Store(nil)
		stop()
		<-ended
	}
	w.server.Store(server)
	w.oracle.attend(ctx)
	if w.pair.there {
		w.join()
	}
}

// newServer runs an API server over what there is until ctx ends, which is told by
// ended, and waits until it is ready.
func (w *world) newServer(ctx context.Context) (server *apiserver.Server, ended <-chan struct{}) {
	server, err := apiserver.New(apiserver.Config{
		Store: w.objects, Kinds: w.keys.kinds, Authority: w.keys.authority, TokenKey: w.keys.tokens,
		NodeMetrics: w.measure, Verdicts: w.keys.verdicts, Log: w.log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Run(ctx)
	}()
	<-server.Ready()
	return server, done
}

func (w *world) now(d time.Duration) time.Time { return time.Now().Add(d) }

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3fs ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
}

// fail says that an invariant does not hold.
func (w *world) fail(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !slices.Contains(w.wrong, line) {
		w.wrong = append(w.wrong, line)
		w.note("WRONG: %s", line)
	}
}

// connect gives a component a line of its own.
func (w *world) connect(l *life, as string, id identity.Identity) client.Transport {
	return &line{Transport: door{w, id}, gate: w.gate, life: l, as: as, acked: w.ack}
}

func (w *world) ack(t target.Target, obj runtime.Object) {
	a, ok := asAcknowledged(t, obj)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acked = append(w.acked, a)
}

// begins runs a component until its life ends; one that crashed comes back.
func (w *world) begins(who string, run func(ctx context.Context, l *life) error) *life {
	ctx, cancel := context.WithCancel(context.Background())
	l := newLife(who, cancel)
	w.lives[who] = l
	go func() {
		defer close(l.done)
		_ = run(ctx, l)
	}()
	return l
}

// startControllers starts a set of all controllers.
func (w *world) startControllers(who string) {
	l := w.begins(who, func(ctx context.Context, l *life) error {
		return controllers.Start(ctx, controllers.Config{
			Transport: func(component string) client.Transport {
				if component == "" {
					return w.connect(l, "mirrors", identity.Identity{Name: "system:kube-controller-manager", Groups: []string{identity.Authenticated}})
				}
				return w.connect(l, component, identity.ServiceAccount("kube-system", component, ""))
			},
			Kinds: controller.NewKinds(controller.Stored(w.keys.kinds)...), RootCA: w.keys.authority.PEM(), Log: w.log,
			Authority: w.keys.authority, TokenKey: w.keys.tokens, NodeRanges: w.nodeRanges(),
		})
	})
	w.respawn(l, func() { w.startControllers(who) })
}

func (w *world) startScheduler(who string) {
	l := w.begins(who, func(ctx context.Context, l *life) error {
		s, err := scheduler.New(scheduler.Config{
			Transport: w.connect(l, "", identity.Identity{Name: "system:kube-scheduler", Groups: []string{identity.Authenticated}}),
			Profiles:  profile.Default(), Seed: w.seed, Log: w.log,
		})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
	w.respawn(l, func() { w.startScheduler(who) })
}

// respawn brings a component back after it has died. Somebody has to look: a plan
// does, every second of trouble.
func (w *world) respawn(l *life, again func()) {
	if w.over {
		return
	}
	w.later(time.Second, "look after "+l.who, func() {
		select {
		case <-l.gone:
			<-l.done
			w.later(restartAfter, "restart "+l.who, again)
		default:
			w.respawn(l, again)
		}
	})
}

// retire ends a component for good.
func (w *world) retire(who string) {
	l := w.lives[who]
	if l == nil {
		return
	}
	l.kill()
	<-l.done
	delete(w.lives, who)
	w.agenda = slices.DeleteFunc(w.agenda, func(p plan) bool {
		return p.name == "look after "+who || p.name == "restart "+who
	})
}

// recover ends all trouble: whoever is away comes back, and nothing more happens
// to anybody.
func (w *world) recover() {
	w.over = true
	w.trouble = trouble{name: "over"}
	clear(w.gate.silent)
	clear(w.gate.deaf)
	agenda := w.agenda
	w.agenda = nil
	w.note("the trouble is over")
	for _, p := range agenda {
		w.note("%s", p.name)
		p.do()
	}
	w.calmDown()
	// What a look found dead has been put on the agenda: it is due now.
	for i := range w.agenda {
		w.agenda[i].at = time.Now()
	}
}
