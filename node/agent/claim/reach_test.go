package claim

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	healthapi "k8s.io/kubelet/pkg/apis/dra-health/v1"
	healthalpha "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/node/agent/plugin"
)

// alpha tells of health as drivers did before there was a v1 of it.
type alpha struct {
	healthalpha.UnimplementedDRAResourceHealthServer
	health chan *healthapi.NodeWatchResourcesResponse
}

func (a alpha) NodeWatchResources(_ *healthalpha.NodeWatchResourcesRequest, s grpc.ServerStreamingServer[healthalpha.NodeWatchResourcesResponse]) error {
	for {
		select {
		case r, more := <-a.health:
			if !more {
				return nil
			}
			out := &healthalpha.NodeWatchResourcesResponse{}
			for _, d := range r.GetDevices() {
				out.Devices = append(out.Devices, &healthalpha.DeviceHealth{
					Device: &healthalpha.DeviceIdentifier{PoolName: d.GetDevice().GetPoolName(), DeviceName: d.GetDevice().GetDeviceName()},
					Health: healthalpha.HealthStatus(d.GetHealth()), Message: d.GetMessage(),
				})
			}
			if err := s.Send(out); err != nil {
				return err
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

// TestOlderDriver: a driver that knows only what came before v1 is spoken to in that.
func TestOlderDriver(t *testing.T) {
	b := benchOf(t, func(s *grpc.Server, f *fake, info *plugin.Info) {
		drabeta.RegisterDRAPluginServer(s, drabeta.V1ServerWrapper{DRAPluginServer: f})
		healthalpha.RegisterDRAResourceHealthServer(s, alpha{health: f.health})
		info.Versions = []string{drabeta.DRAPluginService, healthalpha.DRAResourceHealthService}
	})
	health(t, b)
	if err := b.c.Release(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := b.driver.heard(); got != "prepare mine, unprepare mine" {
		t.Errorf("the driver heard %q", got)
	}
}

// TestWithdrawn: what a driver offered is withdrawn when it can't be reached for half a
// minute, and only that; a restart of the agent withdraws all of its node.
func TestWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := clienttest.NewMemory()
		offer := func(name, driver, node string) {
			server.Seed(&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{Driver: driver, NodeName: &node}})
		}
		offered := func() string {
			list, _, err := client.ResourceSlices.List(t.Context(), server, "", metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range list {
				names = append(names, s.Name)
			}
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		offer("before", "gone", "n1")
		offer("elsewhere", "gpu", "n2")
		c := New(Config{Transport: server, NodeName: "n1", Path: filepath.Join(t.TempDir(), "state"), Log: slog.New(slog.DiscardHandler)})
		c.Begin(t.Context())
		step := func(what string, do func(), wait time.Duration, want string) {
			t.Helper()
			do()
			time.Sleep(wait)
			synctest.Wait()
			if got := offered(); got != want {
				t.Errorf("%s: %q is offered, want %q", what, got, want)
			}
		}
		gpu := &driver{name: "gpu"}
		c.drivers["gpu"] = []*driver{gpu}
		step("at the start", func() {}, 0, "elsewhere")
		offer("gpus", "gpu", "n1")
		offer("nics", "nic", "n1")
		step("not for long", func() { c.unreached(t.Context(), gpu, down) }, wipeAfter-time.Second, "elsewhere gpus nics")
		step("back in time", func() { c.reached(gpu) }, time.Hour, "elsewhere gpus nics")
		step("lost again", func() { c.unreached(t.Context(), gpu, down) }, wipeAfter/2, "elsewhere gpus nics")
		step("the first loss counts", func() { c.unreached(t.Context(), gpu, down) }, wipeAfter/2, "elsewhere nics")
		offer("gpus", "gpu", "n1")
		step("back", func() { c.reached(gpu) }, time.Hour, "elsewhere gpus nics")
		step("another's loss", func() { c.unreached(t.Context(), &driver{name: "gpu"}, down) }, time.Hour, "elsewhere gpus nics")
		c.drivers["gpu"] = append(c.drivers["gpu"], &driver{name: "gpu", reach: up})
		step("another instance is there", func() { c.unreached(t.Context(), gpu, down) }, time.Hour, "elsewhere gpus nics")
		c.drivers["gpu"] = []*driver{gpu}
		step("for good", func() { c.unreached(t.Context(), gpu, down) }, time.Hour, "elsewhere nics")
	})
}
