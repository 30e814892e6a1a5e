package engine

import (
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

func TestSlowSubscribersLoseTheirSubscription(t *testing.T) {
	var h hub
	slow, quick := h.subscribe(), h.subscribe()
	seen := 0
	for range cri.MaxEventBacklog + 1 {
		h.publish(&rt.ContainerEventResponse{})
		<-quick
		seen++
	}
	backlog := 0
	for range slow {
		backlog++
	}
	if backlog != cri.MaxEventBacklog || seen != cri.MaxEventBacklog+1 {
		t.Errorf("the slow one got %d, the quick one %d events", backlog, seen)
	}
	h.unsubscribe(slow) // a second end is no harm
	h.close()
	if _, open := <-quick; open {
		t.Error("the hub is closed, the subscription is not")
	}
	if _, open := <-h.subscribe(); open {
		t.Error("a closed hub took a subscriber")
	}
}
