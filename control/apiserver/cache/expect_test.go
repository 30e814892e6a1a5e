package cache_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
)

// What was announced is used for just these bytes under just this key, whoever wrote
// them, and for nothing else.
func TestExpected(t *testing.T) {
	for name, announce := range map[string]func(c *cache.Cache, mine *corev1.ConfigMap){
		"": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Expect(prefix+"a/b", object("a/b"), mine)
		},
		"another key": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Expect(prefix+"a/c", object("a/b"), mine)
		},
		"other bytes": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Expect(prefix+"a/b", object("a/b", "who=me"), mine)
		},
		"replaced": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Expect(prefix+"a/b", object("a/b"), mine)
			c.Expect(prefix+"a/b", object("a/b", "who=me"), new(corev1.ConfigMap))
		},
		"failed": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Forget(c.Expect(prefix+"a/b", object("a/b"), mine))
			c.Forget(nil)
		},
		"long ago": func(c *cache.Cache, mine *corev1.ConfigMap) {
			c.Expect(prefix+"a/b", object("a/b"), mine)
			for i := range 1200 {
				c.Expect(fmt.Sprint(prefix, i), nil, new(corev1.ConfigMap))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var decoded atomic.Int32
			s := newStore(t)
			c := running(t, cache.Config{Store: s, Decode: func(value []byte) (kruntime.Object, error) {
				decoded.Add(1)
				return decode(value)
			}})
			mine := new(corev1.ConfigMap)
			announce(c, mine)
			rev := create(t, s, "a/b")
			entry, _ := fresh(t, c).Get("a/b")
			got := entry.Object().(*corev1.ConfigMap)
			if used := got == mine; used != (name == "") || used != (decoded.Load() == 0) {
				t.Errorf("used: %v, decoded %d times", used, decoded.Load())
			}
			if got.ResourceVersion != fmt.Sprint(rev) {
				t.Errorf("resourceVersion %q, wanted %d", got.ResourceVersion, rev)
			}
			// It is used once: the same bytes again are another write.
			if _, err := s.Delete(t.Context(), prefix+"a/b", 0); err != nil {
				t.Fatal(err)
			}
			create(t, s, "a/b")
			entry, _ = fresh(t, c).Get("a/b")
			if entry.Object() == kruntime.Object(mine) {
				t.Error("used twice")
			}
			runtime.KeepAlive(mine)
		})
	}
}

// What was announced lives no longer than somebody wants it, and is decoded after that.
func TestExpectedIsLetGo(t *testing.T) {
	s := newStore(t)
	c := running(t, cache.Config{Store: s})
	freed := make(chan struct{})
	mine := new(corev1.ConfigMap)
	runtime.SetFinalizer(mine, func(*corev1.ConfigMap) { close(freed) })
	c.Expect(prefix+"a/b", object("a/b"), mine)
	create(t, s, "a/b")
	entry, _ := fresh(t, c).Get("a/b")
	for done := false; !done; {
		runtime.GC()
		select {
		case <-freed:
			done = true
		default:
			runtime.Gosched()
		}
	}
	if got := entry.Object().(*corev1.ConfigMap); got.Name != "b" {
		t.Errorf("decoded %+v", got)
	}
}
