package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/node/cri"
)

// podUIDLabel is how the agent marks a pod's containers in an engine.
const podUIDLabel = "io.kubernetes.pod.uid"

// signalPod sends a signal to the first process of a pod's running container.
func signalPod(ctx context.Context, s cli.Settings, podUID string, signal syscall.Signal) error {
	pid, err := podProcess(ctx, s, podUID)
	if err != nil {
		return err
	}
	return signalProcess(pid, signal)
}

// podProcess finds the first process of a pod's running container by way of our
// engine's socket: the API has nothing for it.
func podProcess(ctx context.Context, s cli.Settings, podUID string) (int, error) {
	socket := filepath.Join(s.RunDir, "cri.sock")
	if _, err := os.Stat(socket); err != nil {
		return 0, fmt.Errorf("engine: %w: %w", errors.ErrUnsupported, err)
	}
	engine, err := cri.Dial(ctx, socket)
	if err != nil {
		return 0, fmt.Errorf("engine: %w: %w", errors.ErrUnsupported, err)
	}
	defer func() { _ = engine.Close() }() // what it was asked has been answered
	list, err := engine.ListContainers(ctx, &rt.ListContainersRequest{Filter: &rt.ContainerFilter{
		State:         &rt.ContainerStateValue{State: rt.ContainerState_CONTAINER_RUNNING},
		LabelSelector: map[string]string{podUIDLabel: podUID},
	}})
	if err != nil {
		return 0, err
	}
	if len(list.GetContainers()) == 0 {
		return 0, notRunning(ctx, engine, podUID)
	}
	id := list.GetContainers()[0].GetId()
	status, err := engine.ContainerStatus(ctx, &rt.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return 0, err
	}
	var info struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal([]byte(status.GetInfo()["info"]), &info); err != nil || info.PID <= 1 {
		return 0, fmt.Errorf("container %q: no process is known: %w", id, errors.Join(errors.ErrUnsupported, err))
	}
	return info.PID, nil
}

// notRunning tells a pod whose containers have ended here from one that is elsewhere.
func notRunning(ctx context.Context, engine cri.Engine, podUID string) error {
	list, err := engine.ListContainers(ctx, &rt.ListContainersRequest{Filter: &rt.ContainerFilter{LabelSelector: map[string]string{podUIDLabel: podUID}}})
	if err != nil {
		return err
	}
	if len(list.GetContainers()) > 0 {
		return fmt.Errorf("pod %q: none of its containers runs: %w", podUID, os.ErrProcessDone)
	}
	return fmt.Errorf("pod %q: no container of it is here: %w", podUID, errors.ErrUnsupported)
}

// signalProcess signals a process; that it has just ended is no error.
func signalProcess(pid int, signal syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}
