package image

import "testing"

func TestPulls(t *testing.T) {
	var p Pulls
	tell, end := p.Begin("pod", "app:1")
	_, other := p.Begin("another", "app:1")
	defer other()
	tell(Progress{Layer: "sha256:a", Total: 10})
	tell(Progress{Layer: "sha256:b", Total: 30})
	tell(Progress{Layer: "sha256:a", Done: 10, Total: 10})
	tell(Progress{Layer: "sha256:b", Done: 20, Total: 30})
	tell(Progress{Layer: "sha256:b", Done: 15, Total: 30}) // late
	tell(Progress{Layer: "sha256:c", Done: 5, Total: 5, Present: true})
	got := p.Of("pod")
	if len(got) != 1 || got[0].Done != 35 || got[0].Total != 45 || got[0].Ready != 2 || got[0].Layers != 3 || got[0].Ref != "app:1" {
		t.Errorf("%+v", got)
	}
	end()
	if got := p.Of("pod"); len(got) != 0 {
		t.Errorf("after its end: %+v", got)
	}
}
