package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

// A renewal that is refused is tried again within its time, and no more often.
func TestRenewalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, begin := clienttest.NewMemory(), time.Now()
		var refused atomic.Bool
		engine := agenttest.New()
		defer engine.Close()
		var tried []time.Duration
		api.Before = func(verb string, at target.Target) error {
			if verb != "update" || at.Resource != client.Leases.GroupVersionResource {
				return nil
			}
			tried = append(tried, time.Since(begin))
			if refused.Load() {
				return errors.New("too busy")
			}
			return nil
		}
		r, err := New(Config{NodeName: "n1", NodeIPs: []string{"10.0.0.1"}, Transport: api, Engine: engine,
			Disk: t.TempDir(), MaxPods: 110, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(15 * time.Second)
		refused.Store(true)
		time.Sleep(9 * time.Second)
		refused.Store(false)
		time.Sleep(20 * time.Second)
		stop()
		<-done
		var want []time.Duration
		for _, s := range []float64{0, 10, 20, 22.5, 25, 35} {
			want = append(want, time.Duration(s*float64(time.Second)))
		}
		if !slices.Equal(tried, want) {
			t.Errorf("renewals at %v, want %v", tried, want)
		}
	})
}

// Nodes that came together write again each at its own time, and from then on evenly.
func TestReportsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, begin := clienttest.NewMemory(), time.Now()
		engine := agenttest.New()
		defer engine.Close()
		var mu sync.Mutex
		written := map[string][]time.Duration{}
		api.Before = func(verb string, at target.Target) error {
			if verb == "patch" && at.Subresource == "status" {
				mu.Lock()
				defer mu.Unlock()
				written[at.Name] = append(written[at.Name], time.Since(begin))
			}
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		names := []string{"a", "b", "c", "d", "e", "f"}
		for _, name := range names {
			r, err := New(Config{NodeName: name, NodeIPs: []string{"10.0.0.1"}, Transport: api, Engine: engine,
				Disk: t.TempDir(), MaxPods: 110, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() { _ = r.Run(ctx) })
		}
		time.Sleep(20 * time.Minute)
		stop()
		all.Wait()
		seconds := map[time.Duration]bool{}
		for _, name := range names {
			at := written[name]
			i := 1
			for i < len(at) && at[i]-at[i-1] < time.Minute { // what changes while it comes
				i++
			}
			if i+1 >= len(at) {
				t.Fatalf("%s wrote at %v", name, at)
			}
			first := at[i] - at[i-1]
			if first < reportEvery/2 || first > reportEvery*3/2+lookEvery {
				t.Errorf("%s wrote again %v after the first time", name, first)
			}
			seconds[first] = true
			if again := at[i+1] - at[i]; again != reportEvery {
				t.Errorf("%s wrote again after %v, want %v", name, again, reportEvery)
			}
		}
		if len(seconds) < 4 {
			t.Errorf("nodes that came together wrote again after %v", seconds)
		}
	})
}

// What plugins had stays in the node's status as none when they have gone for good; what
// somebody else wrote there stays as it is.
func TestResourcesThatHaveGone(t *testing.T) {
	const device, other = "example.com/gpu", "example.com/other"
	there := true
	engine := agenttest.New()
	defer engine.Close()
	r, err := New(Config{NodeName: "n1", NodeIPs: []string{"10.0.0.1"}, Transport: clienttest.NewMemory(), Engine: engine,
		Disk: t.TempDir(), MaxPods: 110, Log: slog.New(slog.DiscardHandler), Extra: func() (capacity, allocatable corev1.ResourceList) {
			if !there {
				return nil, nil
			}
			return corev1.ResourceList{device: resource.MustParse("2")}, corev1.ResourceList{device: resource.MustParse("1")}
		}})
	if err != nil {
		t.Fatal(err)
	}
	look := func(old corev1.NodeStatus) (corev1.NodeStatus, string) {
		s := r.status(t.Context(), old)
		text := ""
		for _, name := range []corev1.ResourceName{device, other} {
			c, a := s.Capacity[name], s.Allocatable[name]
			_, listed := s.Capacity[name]
			text += fmt.Sprintf("%t %s/%s ", listed, a.String(), c.String())
		}
		return s, text
	}
	s, text := look(corev1.NodeStatus{Capacity: corev1.ResourceList{other: resource.MustParse("7")}})
	if want := "true 1/2 true 7/7 "; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	there = false
	if _, text = look(s); text != "true 0/0 true 7/7 " {
		t.Errorf("gone: %q", text)
	}
}

// What the labels say of the machine is set right again while the node lives; the other
// labels belong to whoever changes them.
func TestLabelsOfTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		engine := agenttest.New()
		defer engine.Close()
		r, err := New(Config{NodeName: "n1", NodeIPs: []string{"10.0.0.1"}, Transport: api, Engine: engine,
			Disk: t.TempDir(), MaxPods: 110, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		at := target.Of(client.Nodes.GroupVersionResource, "").Object("n1")
		data := `{"metadata":{"labels":{"kubernetes.io/os":"another","kubernetes.io/arch":null,"beta.kubernetes.io/os":"another","mine":"x"}}}`
		changed, err := client.Nodes.Patch(t.Context(), api, at, client.Patch{Type: types.StrategicMergePatchType, Data: []byte(data)})
		if err != nil {
			t.Fatal(err)
		}
		r.Seen(changed)
		time.Sleep(lookEvery)
		synctest.Wait()
		got, err := client.Nodes.Get(t.Context(), api, "", "n1")
		stop()
		<-done
		want := map[string]string{"kubernetes.io/os": runtime.GOOS, "kubernetes.io/arch": runtime.GOARCH, "beta.kubernetes.io/os": "another",
			"beta.kubernetes.io/arch": runtime.GOARCH, "kubernetes.io/hostname": "n1", "mine": "x"}
		if err != nil || !maps.Equal(got.Labels, want) {
			t.Errorf("labels %v, %v; want %v", got.Labels, err, want)
		}
	})
}

// A node that others register is waited for, and never made.
func TestOthersRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := clienttest.NewMemory()
		engine := agenttest.New()
		defer engine.Close()
		r, err := New(Config{NodeName: "n1", NodeIPs: []string{"10.0.0.1"}, Transport: api, Engine: engine,
			Disk: t.TempDir(), MaxPods: 110, Absent: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		if _, err := client.Nodes.Get(t.Context(), api, "", "n1"); err == nil {
			t.Error("the node was made")
		}
		select {
		case <-r.Registered():
			t.Error("a node that is not there counts as registered")
		default:
		}
		if _, err := client.Nodes.Create(t.Context(), api, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		stop()
		<-done
		n, err := client.Nodes.Get(t.Context(), api, "", "n1")
		if err != nil || len(n.Status.Conditions) == 0 {
			t.Errorf("the node that others made has no status: %v %v", n, err)
		}
	})
}
