package agent

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/probe"
	"github.com/sampan-dev/sampan/node/agent/server"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/static"
	"github.com/sampan-dev/sampan/node/agent/status"
	"github.com/sampan-dev/sampan/node/volume"
)

// stage is where a pod is in its life on this node. It only moves forward.
type stage int

const (
	// serving: the pod should run; plan says what is missing.
	serving stage = iota
	// stopping: its containers and sandboxes are being brought down.
	stopping
	// releasing: nothing runs; its volumes and, when it is being deleted, the
	// remains in the engine are being removed.
	releasing
	// ended: only the API's word is awaited: that the status has arrived, and for
	// a pod being deleted that the object is gone.
	ended
	// burying: the API has it no more; the last traces are being removed.
	burying
	// buried: nothing is left; the owner goes.
	buried
)

// observeRetry is the delay after the engine could not be asked.
const observeRetry = 2 * time.Second

// machine owns one pod: only its goroutine (run) changes the fields below
// "owned". Others leave word in the mailbox and ring.
type machine struct {
	a               *Agent
	uid             types.UID
	namespace, name string
	log             *slog.Logger
	bell            chan struct{}
	// down closes when nothing of the pod runs any more.
	down chan struct{}
	// static: a manifest asks for it, and the API only shows it.
	static bool
	// trusting: a volume of the pod shows trust bundles.
	trusting bool

	mu      sync.Mutex // guards the mailbox and what others read
	mail    change
	refs    bool
	end     *ending
	results []func(*machine)
	seenIPs []string
	// seenStatus is a static pod's status, which the API may not have.
	seenStatus corev1.PodStatus
	holds      *corev1.Pod // the admitted pod, nil when it needs no room any more
	waits      atomic.Bool // its resize waits for room
	freed      string      // what may have made room for it, the last of that
	shows      shown       // for figures

	// owned
	life     context.Context // the owner's; operations that follow others begin under it
	birth    birth
	unknown  bool // the engine alone knew of it
	stage    stage
	pod      *corev1.Pod
	gone     bool
	verdict  *admit.Refusal
	fresh    bool      // it has not been placed yet
	doubted  time.Time // since when the devices of a pod that lost its sandbox unseen are waited for
	fatal    *status.Verdict
	reader   *actual.Reader
	now      *actual.Pod
	messages map[string]string
	ops      map[string]*op
	stop     *plan.Stop
	grace    int64
	ended    bool
	frozen   bool

	mounted bool
	set     volume.Set
	// throughout: read-only mounts can be so all the way down; nil when it is not known.
	throughout *bool
	stale      bool
	holdMount  time.Time
	mountFail  int
	holdBox    time.Time
	boxFail    int

	images   map[imageUse]spec.Image
	pulls    map[imageUse]pullHistory
	failures map[string]plan.Failure
	crashes  map[string]plan.Crash
	told     map[string]time.Time
	shown    map[string]plan.Waiting
	killed   plan.Killed

	given  map[string]plan.Given
	noRoom *status.Verdict
	// resizeFault is what the engine said against the resize, "" for nothing.
	resizeFault string
	holdResize  time.Time
	// resizing is the generation that is being brought about, 0 for none; heldBack the
	// last whose resize had to wait.
	resizing, heldBack int64
	// deferred is since when a resize has to wait, zero while none does.
	deferred time.Time

	probes  *probe.Set
	adopted bool
	status  corev1.PodStatus
	// mirror is what shows a static pod, nil for nothing.
	mirror     *corev1.Pod
	holdMirror time.Time
	mirrorFail int
	inherited  bool
	written    bool
	holdSend   time.Time
	sendFail   int
	wasReady   bool
}

func newMachine(a *Agent, pod *corev1.Pod) *machine {
	m := &machine{
		a: a, uid: pod.UID, namespace: pod.Namespace, name: pod.Name,
		log:  a.cfg.Log.With("pod", pod.Name, "namespace", pod.Namespace, "uid", pod.UID),
		bell: make(chan struct{}, 1), down: make(chan struct{}), mail: change{pod: pod}, pod: pod, holds: granted(pod),
		reader: actual.NewReader(a.cfg.Engine), now: &actual.Pod{UID: string(pod.UID)},
		messages: map[string]string{}, ops: map[string]*op{}, images: map[imageUse]spec.Image{},
		pulls: map[imageUse]pullHistory{}, failures: map[string]plan.Failure{}, crashes: map[string]plan.Crash{},
		told: map[string]time.Time{}, shown: map[string]plan.Waiting{}, given: map[string]plan.Given{}, killed: plan.Killed{}, status: pod.Status,
	}
	m.static, m.birth.seen = static.Is(pod), time.Now()
	m.trusting, _ = volume.Attests(pod)
	m.probes = probe.NewSet(a.doer.Probe, m.wake, func(container string, kind probe.Kind, output string) {
		m.unhealthy(m.latest(), container, kind.Title(), output)
	})
	m.probes.Warn = func(container string, kind probe.Kind, output string) {
		m.doubtful(m.latest(), container, kind.Title(), output)
	}
	m.probes.Count = func(container string, kind probe.Kind, result probe.Result, took time.Duration) {
		word := map[probe.Result]string{probe.Success: "successful", probe.Failure: "failed"}[result]
		if word == "" {
			word = "unknown"
		}
		a.probed.Count(m.latest(), server.Asked{Container: container, Kind: kind.Title(), Result: word, Took: took})
	}
	return m
}

// run is the owner's life.
func (m *machine) run(ctx context.Context) {
	defer m.probes.Stop()
	defer m.a.refs.release(m.uid)
	defer m.a.certs.forget(m.uid)
	defer func() { m.a.probed.Forget(m.pod) }()
	m.life = ctx
	m.a.tally.PodTaken(time.Since(m.birth.seen))
	aside(func() { m.enter(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for m.stage != buried {
		select {
		case <-m.bell:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		var next time.Duration
		aside(func() { next = m.step(ctx) })
		timer.Reset(next)
	}
}

// aside does fn and waits for it, on a goroutine that ends with it: so those that
// mostly wait, a few for every pod and node, have small stacks.
func aside(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

// enter gives a pod that has just come its place here, if it may have one. As
// upstream, parts of the machine are looked for before resources are counted, so that a
// pod that asks for more CPUs than there are hears it, and is counted, as one for which
// none were found.
func (m *machine) enter(ctx context.Context) {
	if m.fresh && (m.verdict == nil || m.verdict.Short()) {
		if refused := m.a.place(ctx, m.pod); refused != nil {
			m.verdict = refused
		}
	}
	if m.verdict != nil {
		m.a.tally.PodRefused(m.verdict.Reason)
		m.reject()
		return
	}
	if m.fresh {
		m.a.tally.PodAdmitted(m.pod)
	}
}

// step looks, decides and begins; it returns when to look again at the latest.
func (m *machine) step(ctx context.Context) time.Duration {
	begin, before := time.Now(), m.pod
	m.collect()
	defer func() { m.a.tally.PodSynced(m.birth.purpose(m.stage, m.pod != before), time.Since(begin)) }()
	if err := m.observe(ctx); err != nil {
		if ctx.Err() == nil {
			m.log.Warn("can't see the pod's containers", "err", err)
		}
		return observeRetry
	}
	again := newest(m.a.cfg.Resync)
	waiting := map[string]plan.Waiting{}
	for moved := true; moved; {
		moved = m.advance(ctx, again, waiting)
	}
	m.probe(ctx)
	m.reflect(ctx, again)
	m.report(ctx, again, waiting)
	m.show()
	return again.in()
}

// advance does what the stage asks for and reports whether the next one began.
func (m *machine) advance(ctx context.Context, again *alarm, waiting map[string]plan.Waiting) bool {
	before := m.stage
	switch m.stage {
	case serving:
		m.judge(again)
		if m.stage == serving {
			m.decide(ctx, again, waiting)
		}
	case stopping:
		m.judge(again)
		m.decide(ctx, again, waiting)
	case releasing:
		m.release(ctx)
	case ended:
		m.finish(ctx, again)
	case burying:
		m.bury(ctx)
	}
	return m.stage != before
}

// collect takes what others have left.
func (m *machine) collect() {
	m.mu.Lock()
	mail, refs, results, end := m.mail, m.refs, m.results, m.end
	m.refs, m.results, m.end = false, nil, nil
	m.mu.Unlock()
	m.accept(mail)
	m.heed(end)
	for _, apply := range results {
		apply(m)
	}
	if refs {
		// Whatever failed for want of an object may work now.
		m.stale, m.holdMount = true, time.Time{}
		for name, f := range m.failures {
			if f.Reason == errConfig {
				delete(m.failures, name)
			}
		}
	}
}

// accept takes a newer version of the pod.
func (m *machine) accept(c change) {
	m.gone = m.gone || c.gone
	if c.pod == m.pod || older(c.pod.ResourceVersion, m.pod.ResourceVersion) {
		return
	}
	m.stale = m.stale || metaChanged(m.pod, c.pod)
	if c.pod.Generation != m.pod.Generation && m.stage == serving && m.a.tally.ResizeAsked(m.pod, c.pod) {
		m.mu.Lock()
		m.freed = podUpdated
		m.mu.Unlock()
	}
	m.renew(c.pod)
}

// renew makes a newer version of the pod the one that counts. What was admitted is it
// as well as long as its specification is the same: no older version is kept for that.
func (m *machine) renew(pod *corev1.Pod) {
	m.mu.Lock()
	if m.holds == m.pod && pod.Generation == m.pod.Generation {
		m.holds = pod
	}
	m.mu.Unlock()
	m.redefined(m.pod, pod)
	m.pod = pod
}

func (a *Agent) runtimeName() string { return *a.runtime.Load() }

// probe keeps the right probes going.
func (m *machine) probe(ctx context.Context) {
	if m.stage > stopping {
		m.probes.Stop()
		return
	}
	m.probes.Update(ctx, m.pod, m.now, m.stage == stopping)
}

// alarm is the earliest of several times to look again.
type alarm struct{ at time.Time }

func newest(d time.Duration) *alarm { return &alarm{at: time.Now().Add(d)} }

func (a *alarm) by(t time.Time) {
	if !t.IsZero() && t.Before(a.at) {
		a.at = t
	}
}

// minLook keeps a timer from spinning: time alone never changes anything faster.
const minLook = 10 * time.Millisecond

func (a *alarm) in() time.Duration { return max(time.Until(a.at), minLook) }
