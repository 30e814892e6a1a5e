package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// TestKernelFaults: which settings of the kernel are complained of.
func TestKernelFaults(t *testing.T) {
	for _, c := range []struct {
		change map[string]string
		want   string
	}{
		{nil, ""},
		{map[string]string{"vm.overcommit_memory": "0"}, "protectKernelDefaults: invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0"},
		{map[string]string{"kernel.panic": ""}, "protectKernelDefaults: not there"},
		{map[string]string{"kernel.panic": "0", "vm.panic_on_oom": "1"}, "protectKernelDefaults: invalid kernel flag: kernel/panic, expected value: 10, actual value: 0\n" +
			"protectKernelDefaults: invalid kernel flag: vm/panic_on_oom, expected value: 0, actual value: 1"},
	} {
		have := maps.Clone(kernelWants)
		maps.Copy(have, c.change)
		err := kernelFaults(func(name string) (string, error) {
			if have[name] == "" {
				return "", errors.New("not there")
			}
			return have[name], nil
		})
		if text := errorText(err); text != c.want {
			t.Errorf("%v: %q, want %q", c.change, text, c.want)
		}
	}
}

// TestTune: what is not as the kubelet wants it is set, the rest left alone, and what can't be
// set is an error.
func TestTune(t *testing.T) {
	have := maps.Clone(kernelWants)
	have["vm.overcommit_memory"], have["kernel.panic"], have["vm.panic_on_oom"] = "0", "0", "2"
	read := func(name string) (string, error) { return have[name], nil }
	cfg := Config{Log: slog.New(slog.DiscardHandler)}
	var order []string
	err := cfg.tune(read, func(name, value string) error {
		if order = append(order, name+"="+value); name == "kernel.panic" {
			return errors.New("read-only")
		}
		have[name] = value
		return nil
	})
	if got, want := strings.Join(order, " "), "kernel.panic=10 vm.overcommit_memory=1 vm.panic_on_oom=0"; got != want {
		t.Errorf("set %s, want %s", got, want)
	}
	if got, want := errorText(err), "protectKernelDefaults: set kernel.panic: read-only"; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	if got, want := errorText(kernelFaults(read)), "protectKernelDefaults: invalid kernel flag: kernel/panic, expected value: 10, actual value: 0"; got != want {
		t.Errorf("left %q, want %q", got, want)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// counting is a transport that counts questions.
type counting struct {
	client.Transport
	asked int
}

func (c *counting) Get(context.Context, target.Target, metav1.GetOptions) (runtime.Object, error) {
	c.asked++
	return nil, nil
}

// TestPaced: so many requests a second, and a burst at once; without a number no bound.
func TestPaced(t *testing.T) {
	for _, c := range []struct {
		qps  *int32
		want int
	}{{nil, 1000}, {ptr.To[int32](0), 1000}, {ptr.To[int32](5), 3 + 10*5}} {
		synctest.Test(t, func(t *testing.T) {
			to := &counting{}
			paced := paced(to, rate(c.qps, 3))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
			defer cancel()
			for range 1000 {
				if _, err := paced.Get(ctx, target.Target{}, metav1.GetOptions{}); err != nil {
					break
				}
			}
			if to.asked != c.want {
				t.Errorf("%v a second: %d in ten seconds, want %d", ptr.Deref(c.qps, 0), to.asked, c.want)
			}
		})
	}
}

// TestPullsAreBounded: a pull that comes too soon fails, in upstream's words.
func TestPullsAreBounded(t *testing.T) {
	p := &puller{rate: rate(ptr.To[int32](1), 0)}
	p.rate.Accept()
	if _, _, err := p.pull(t.Context(), nil, "a"); !errors.Is(err, errPullRate) || !strings.Contains(err.Error(), "pull QPS exceeded") {
		t.Errorf("pulled: %v", err)
	}
}
