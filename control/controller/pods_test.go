package controller_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/controller"
)

// All are called though some fail, the first failure in order is told, and no more
// than some tens are under way at a time.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		var called [n]atomic.Bool
		var under, most atomic.Int64
		err := controller.AtOnce(n, func(i int) error {
			now := under.Add(1)
			defer under.Add(-1)
			for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
			}
			if called[i].Swap(true) {
				t.Errorf("%d is called twice", i)
			}
			time.Sleep(time.Second) // virtual
			if i >= 7 && i%100 == 7 {
				return fmt.Errorf("failure %d", i)
			}
			return nil
		})
		if err == nil || err.Error() != "failure 7" {
			t.Errorf("got %v, want the first failure", err)
		}
		for i := range called {
			if !called[i].Load() {
				t.Errorf("%d was not called", i)
			}
		}
		if most.Load() != 32 {
			t.Errorf("%d were under way at a time, want 32", most.Load())
		}
	})
}

// Batches stop after the one in which a call failed.
func TestInBatches(t *testing.T) {
	var called atomic.Int64
	refused := errors.New("refused")
	err := controller.InBatches(500, func(i int) error {
		called.Add(1)
		if i == 20 {
			return refused
		}
		return nil
	})
	if !errors.Is(err, refused) || called.Load() != 31 {
		t.Errorf("got %v after %d calls, want a refusal after 31", err, called.Load())
	}
}
