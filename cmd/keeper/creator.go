package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// creatorHooks does what whoever creates a container does when its namespaces and
// mounts are there: it runs the hooks that belong to the host, and gives the stage
// the state that its own read. Then it waits for what the stage has to say.
func (ch *child) creatorHooks(notes []string) (rep plan.Report, got []int, err error) {
	if len(ch.c.HookState) < 2 {
		return rep, nil, fmt.Errorf("container %q has hooks and no state for them", ch.id)
	}
	state := []byte(`{"pid":` + strconv.Itoa(ch.pid) + `,` + ch.c.HookState[1:])
	for i := range ch.c.CreatorHooks {
		h := &ch.c.CreatorHooks[i]
		if err := runHook(h, state, ""); err != nil {
			rep.Error, rep.Code = hookFailed("createRuntime", i, h.Path, err).Error(), 128
			return rep, nil, nil
		}
	}
	if err := ch.control.write(state); err != nil {
		return rep, nil, err
	}
	got, err = ch.control.recv(&rep)
	rep.Notes = append(notes, rep.Notes...)
	return rep, got, err
}

// standIn makes the child that of another runtime, whose stage is its parent: it
// is the one to be watched, and the stage ends after it.
func (ch *child) standIn(pid int) error {
	fd, err := pidfdOpen(pid)
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	go reapLater(ch.pidfd, ch.pid)
	ch.pid, ch.started, ch.pidfd = pid, startTime(pid), pollFile(fd, "pidfd")
	return nil
}

// reapLater waits for a stage that has a container of its own.
func reapLater(stage *os.File, pid int) {
	awaitExit(stage, pid)
	reapNow(stage)
	stage.Close()
}
