package probe

import (
	"context"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Asker carries out one probe of a container. It returns the outcome and what
// to tell about it.
type Asker func(ctx context.Context, pod *corev1.Pod, c *actual.Container, p *corev1.Probe) (Result, string)

// Set runs the probes of one pod. Update is called by the pod's owner only; the
// other methods by anyone.
type Set struct {
	ask     Asker
	changed func()
	failed  func(container string, kind Kind, output string)
	// Count, when set before the first Update, is told of every result and how long it
	// took to have it, from any goroutine.
	Count func(container string, kind Kind, result Result, took time.Duration)
	// Warn, when set before the first Update, is told of every success that came with a
	// warning, from any goroutine.
	Warn func(container string, kind Kind, output string)

	mu      sync.Mutex
	state   map[string]*state
	running map[string]context.CancelFunc
	wg      sync.WaitGroup
}

// state is what the probes of one container id have said.
type state struct {
	verdicts map[Kind]Result
	judges   map[Kind]*Judge
}

func newState() *state {
	return &state{verdicts: map[Kind]Result{}, judges: map[Kind]*Judge{}}
}

// NewSet makes a Set. changed is called, from any goroutine, whenever a verdict
// has changed; failed for every single failure, for the event.
func NewSet(ask Asker, changed func(), failed func(container string, kind Kind, output string)) *Set {
	return &Set{
		ask: ask, changed: changed, failed: failed,
		state: map[string]*state{}, running: map[string]context.CancelFunc{},
	}
}

// Update starts the probes that should run now and ends those that shouldn't.
// While the pod is stopping only readiness is still asked.
func (s *Set) Update(ctx context.Context, pod *corev1.Pod, now *actual.Pod, stopping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]bool{}
	live := map[string]bool{}
	for _, c := range spec.Containers(pod) {
		a := now.Latest(c.Name)
		if a == nil || a.State != actual.Running {
			continue
		}
		live[a.ID] = true
		for kind, p := range probes(c) {
			if p == nil || !s.due(a.ID, c, kind, stopping) {
				continue
			}
			key := a.ID + "/" + string(kind)
			want[key] = true
			if s.running[key] == nil {
				s.launch(ctx, pod, *a, kind, p)
			}
		}
	}
	for key, cancel := range s.running {
		if !want[key] {
			cancel()
			delete(s.running, key)
		}
	}
	maps.DeleteFunc(s.state, func(id string, _ *state) bool { return !live[id] })
}

func probes(c *corev1.Container) map[Kind]*corev1.Probe {
	return map[Kind]*corev1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe}
}

// due: startup is asked until it is decided, the others once it has succeeded,
// liveness until it has failed.
func (s *Set) due(id string, c *corev1.Container, kind Kind, stopping bool) bool {
	startup := s.verdict(id, Startup)
	switch kind {
	case Startup:
		return !stopping && startup == Unknown
	case Liveness:
		return !stopping && (c.StartupProbe == nil || startup == Success) && s.verdict(id, Liveness) != Failure
	}
	return c.StartupProbe == nil || startup == Success
}

func (s *Set) verdict(id string, kind Kind) Result {
	if st := s.state[id]; st != nil {
		return st.verdicts[kind]
	}
	return Unknown
}

func (s *Set) launch(ctx context.Context, pod *corev1.Pod, c actual.Container, kind Kind, p *corev1.Probe) {
	st := s.state[c.ID]
	if st == nil {
		st = newState()
		s.state[c.ID] = st
	}
	st.judges[kind] = NewJudge(kind, p)
	ctx, cancel := context.WithCancel(ctx)
	s.running[c.ID+"/"+string(kind)] = cancel
	s.wg.Go(func() {
		defer cancel()
		s.work(ctx, pod, c, kind, p)
	})
}

// hurryFirst is the pause after the first failure of a container that is only
// just starting; it doubles until the probe's own period is reached.
const hurryFirst = time.Second

// work asks again and again until it is told to stop: once a period, and in
// between while a starting container isn't ready yet, so that a server that
// needs a second to listen isn't held back for a period of ten. What fails
// between the regular times isn't counted. Commands are never asked in between:
// they may count their calls, and they cost more.
func (s *Set) work(ctx context.Context, pod *corev1.Pod, c actual.Container, kind Kind, p *corev1.Probe) {
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	regular := c.Started.Add(time.Duration(p.InitialDelaySeconds) * time.Second)
	pause := hurryFirst
	hurry := kind != Liveness && p.Exec == nil
	timer := time.NewTimer(time.Until(regular))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		counted := !time.Now().Before(regular)
		if counted {
			regular = time.Now().Add(period)
		}
		askCtx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
		begin := time.Now()
		result, output := s.ask(askCtx, pod, &c, p)
		took := time.Since(begin)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if result == Warned {
			result = Success
			if s.Warn != nil {
				s.Warn(c.Name, kind, output)
			}
		}
		if s.Count != nil {
			s.Count(c.Name, kind, result, took)
		}
		if counted || result == Success {
			s.note(c, kind, result, output)
		}
		hurry = hurry && result != Success
		next := regular
		if soon := time.Now().Add(pause); hurry && soon.Before(regular) {
			next, pause = soon, 2*pause
		}
		timer.Reset(time.Until(next))
	}
}

// note takes one result in and tells whoever must know.
func (s *Set) note(c actual.Container, kind Kind, result Result, output string) {
	if result == Failure {
		s.failed(c.Name, kind, output)
	}
	s.mu.Lock()
	st := s.state[c.ID]
	if st == nil {
		s.mu.Unlock()
		return
	}
	verdict, decided := st.judges[kind].Add(result)
	news := decided && st.verdicts[kind] != verdict
	if decided {
		st.verdicts[kind] = verdict
	}
	s.mu.Unlock()
	if news {
		s.changed()
	}
}

// Started reports whether the container's startup probe, if any, has succeeded.
func (s *Set) Started(c *corev1.Container, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.StartupProbe == nil || s.verdict(id, Startup) == Success
}

// Ready reports whether a started container's readiness probe, if any, has
// succeeded.
func (s *Set) Ready(c *corev1.Container, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.StartupProbe != nil && s.verdict(id, Startup) != Success {
		return false
	}
	return c.ReadinessProbe == nil || s.verdict(id, Readiness) == Success
}

// Failed names the probe that wants the container killed, "" for none, and the
// grace period that it has of its own.
func (s *Set) Failed(c *corev1.Container, id string) (Kind, *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.StartupProbe != nil && s.verdict(id, Startup) == Failure {
		return Startup, c.StartupProbe.TerminationGracePeriodSeconds
	}
	if c.LivenessProbe != nil && s.verdict(id, Liveness) == Failure {
		return Liveness, c.LivenessProbe.TerminationGracePeriodSeconds
	}
	return "", nil
}

// Assume takes the container's readiness as it was known before the agent
// restarted, so that adopting a running pod doesn't make it unready. What a probe
// has found since then stays.
func (s *Set) Assume(id string, started, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state[id]
	if st == nil {
		st = newState()
		s.state[id] = st
	}
	if started && st.verdicts[Startup] == Unknown {
		st.verdicts[Startup] = Success
	}
	if ready && st.verdicts[Readiness] == Unknown {
		st.verdicts[Readiness] = Success
	}
}

// Stop ends all probes and waits for them.
func (s *Set) Stop() {
	s.mu.Lock()
	for key, cancel := range s.running {
		cancel()
		delete(s.running, key)
	}
	s.mu.Unlock()
	s.wg.Wait()
}
