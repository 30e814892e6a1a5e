package metricsapi

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How often nodes are asked, and for how long after the last question.
const (
	// every is the rhythm while somebody asks: the autoscaler's, and upstream's.
	every = 15 * time.Second
	// attention is how long nodes are asked after the last question.
	attention = 90 * time.Second
	// glance is the window of the first answer: nobody has looked before, and
	// whoever asks shall not wait for the second look.
	glance = time.Second
	// askWait bounds one node's answer; it must leave time in a request.
	askWait = 10 * time.Second
	// atOnce is how many nodes are asked at the same time.
	atOnce = 64
	// maxAnswer bounds what a node may say: about 100 bytes a line, seven lines a
	// container, more containers than a node may have.
	maxAnswer = 16 << 20
)

// podKey names a pod.
type podKey struct{ namespace, name string }

// sample is what a node said.
type sample struct {
	node point
	pods map[podKey]map[string]point
}

// pair is a node's last two samples.
type pair struct{ before, now sample }

// sampler asks nodes while it is asked.
type sampler struct {
	cfg Config
	// ctx is the sampler's life: it goes on when the request that woke it is done.
	ctx  context.Context
	stop context.CancelFunc

	mu    sync.Mutex
	asked time.Time
	// warm is closed when all nodes have been asked twice; nil while nobody looks.
	warm  chan struct{}
	pairs map[string]pair
}

func newSampler(cfg Config) *sampler {
	ctx, stop := context.WithCancel(context.Background())
	return &sampler{cfg: cfg, ctx: ctx, stop: stop}
}

// samples gives the last two samples of each node that answered. When nobody has
// asked for a while, it takes a glance.
func (s *sampler) samples(ctx context.Context) (map[string]pair, error) {
	s.mu.Lock()
	s.asked = time.Now()
	if s.warm == nil {
		s.warm = make(chan struct{})
		go s.run(s.warm)
	}
	warm := s.warm
	s.mu.Unlock()
	select {
	case <-warm:
	case <-ctx.Done():
		return nil, fmt.Errorf("ask the nodes: %w", context.Cause(ctx))
	case <-s.ctx.Done():
		return nil, fmt.Errorf("ask the nodes: %w", context.Cause(s.ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]pair, len(s.pairs))
	for name, p := range s.pairs {
		all[name] = p
	}
	return all, nil
}

// run asks all nodes, until nobody has asked for it for a while.
func (s *sampler) run(warm chan struct{}) {
	last := s.ask(s.ctx)
	wait := glance
	for {
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		if time.Since(s.asked) > attention {
			s.warm, s.pairs = nil, nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		now := s.ask(s.ctx)
		pairs := make(map[string]pair, len(now))
		for name, sample := range now {
			pairs[name] = pair{before: last[name], now: sample}
		}
		s.mu.Lock()
		s.pairs = pairs
		s.mu.Unlock()
		if wait == glance {
			close(warm)
		}
		last, wait = now, every
	}
}

// ask asks every node. Who does not answer is left out.
func (s *sampler) ask(ctx context.Context) map[string]sample {
	nodes, err := listed[*corev1.Node](ctx, s.cfg.Objects, "nodes", "", everything)
	if err != nil {
		s.cfg.Log.Warn("list nodes for their metrics", "err", err)
		return nil
	}
	out := make(map[string]sample, len(nodes))
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, n := range nodes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			got, err := s.askOne(ctx, n.Name)
			if err != nil {
				s.cfg.Log.Debug("ask a node for its metrics", "node", n.Name, "err", err)
				return
			}
			mu.Lock()
			out[n.Name] = got
			mu.Unlock()
		})
	}
	all.Wait()
	return out
}

func (s *sampler) askOne(ctx context.Context, node string) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	body, err := s.cfg.Ask(ctx, node)
	if err != nil {
		return sample{}, err
	}
	defer body.Close()
	limited := &io.LimitedReader{R: body, N: maxAnswer + 1}
	got, err := read(limited, time.Now())
	if err == nil && limited.N == 0 {
		err = fmt.Errorf("read a node's metrics: more than %d bytes", maxAnswer)
	}
	return got, err
}
