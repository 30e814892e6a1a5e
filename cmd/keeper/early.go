package main

import (
	"bytes"
	"slices"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxEarly bounds what is kept of a container's output for its first client.
const maxEarly = 64 << 10

// early is the output of a container that is made for one client (StdinOnce) from
// its start until that client comes: a client can attach only to what runs, and
// would miss the first prompt. When it is full, the container waits for the client
// as it waits for a slow one. A keeper that takes over from another keeps nothing.
type early struct {
	frames [][]byte
	size   int
	// met closes when the client has come; nil means that nothing is kept.
	met chan struct{}
}

// deliver gives a frame to those who are attached, or keeps it for the first.
func (o *output) deliver(frame []byte) {
	if !o.hold(frame) {
		o.broadcast(frame)
	}
}

// hold keeps a frame for the first client; false means that it has come, or that
// it has been waited for long enough.
func (o *output) hold(frame []byte) bool {
	o.mu.Lock()
	e := &o.early
	if e.met == nil {
		o.mu.Unlock()
		return false
	}
	if e.size+len(frame) <= maxEarly {
		e.frames, e.size = append(e.frames, frame), e.size+len(frame)
		o.mu.Unlock()
		return true
	}
	met := e.met
	o.mu.Unlock()
	select {
	case <-met:
	case <-time.After(slowClient):
		o.mu.Lock()
		o.early = early{}
		o.mu.Unlock()
	}
	return false
}

// shown drops what the log has by now: who reads it before attaching, as kubectl run
// does, has seen that. A line without an end is not in the log yet, and stays.
func (o *output) shown() {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := &o.early
	frames, logged := e.frames, map[plan.Stream]bool{}
	e.frames, e.size = nil, 0
	for _, frame := range slices.Backward(frames) {
		stream := plan.Stream(frame[0])
		if logged[stream] {
			continue
		}
		if end := bytes.LastIndexByte(frame[1:], '\n'); end >= 0 {
			logged[stream] = true
			frame = slices.Concat(frame[:1], frame[end+2:])
		}
		if len(frame) > 1 {
			e.frames, e.size = append(e.frames, frame), e.size+len(frame)
		}
	}
	slices.Reverse(e.frames)
}

// join gives a client what was kept, and then adds it to those who get everything;
// false means that there is nothing more to come, or that the client has gone.
func (o *output) join(cl *client) bool {
	for {
		o.mu.Lock()
		frames := o.early.frames
		o.early.frames, o.early.size = nil, 0
		if len(frames) == 0 {
			break
		}
		o.mu.Unlock()
		for _, frame := range frames {
			_ = cl.c.f.SetWriteDeadline(time.Now().Add(slowClient))
			if _, err := cl.c.f.Write(frame); err != nil {
				return false
			}
		}
	}
	defer o.mu.Unlock()
	if o.early.met != nil {
		close(o.early.met)
		o.early.met = nil
	}
	if o.over {
		return false
	}
	o.clients[cl] = struct{}{}
	return true
}
