package actual_test

import (
	"context"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/cri"
)

// unsure is an engine that doesn't know the state of a container: it is removing it.
type unsure struct {
	cri.Engine
	of string
}

func (u *unsure) ListContainers(ctx context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	got, err := u.Engine.ListContainers(ctx, r)
	for _, c := range got.GetContainers() {
		if c.Id == u.of {
			c.State = rt.ContainerState_CONTAINER_UNKNOWN
		}
	}
	return got, err
}

func (u *unsure) ContainerStatus(ctx context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	got, err := u.Engine.ContainerStatus(ctx, r)
	if err == nil && r.ContainerId == u.of {
		got.Status.State = rt.ContainerState_CONTAINER_UNKNOWN
	}
	return got, err
}

// TestWhatHasEndedStaysSo: a container that is being removed is not taken for one that
// may run.
func TestWhatHasEndedStaysSo(t *testing.T) {
	engine := agenttest.New()
	defer engine.Close()
	ctx, labels := t.Context(), map[string]string{actual.LabelPodUID: "u", actual.LabelContainerName: "app"}
	box, err := engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: "p", Uid: "u"}, Labels: labels}})
	if err != nil {
		t.Fatal(err)
	}
	made, err := engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: box.PodSandboxId, Config: &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: "app"}, Image: &rt.ImageSpec{Image: "app"}, Labels: labels}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	u := &unsure{Engine: engine}
	reader := actual.NewReader(u)
	state := func() actual.State {
		now, err := reader.Read(ctx, "u")
		if err != nil || len(now.Containers) != 1 {
			t.Fatal(now, err)
		}
		return now.Containers[0].State
	}
	u.of = made.ContainerId
	if s := state(); s != actual.Unknown {
		t.Errorf("while it may run: %v", s)
	}
	if _, err := engine.StopContainer(ctx, &rt.StopContainerRequest{ContainerId: made.ContainerId, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	u.of = ""
	if s := state(); s != actual.Exited {
		t.Errorf("after its end: %v", s)
	}
	u.of = made.ContainerId
	if s := state(); s != actual.Exited {
		t.Errorf("while it is removed: %v", s)
	}
}
