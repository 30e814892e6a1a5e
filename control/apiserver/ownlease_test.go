package apiserver

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLeaseName(t *testing.T) {
	// What upstream's server calls itself on a host of this name.
	if got, want := leaseName("vm"), "apiserver-wlv32tlttr4jl3gtroqexyxapa"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A lease is renewed, and those of servers that are no more go.
func TestRunOut(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w := ownLease("a", "host", "holder", "192.0.2.1:6443", metav1.NewMicroTime(now))
	l := w.obj.(*coordinationv1.Lease)
	for after, want := range map[time.Duration]bool{0: false, leaseEvery: false, time.Hour: false, time.Hour + time.Second: true} {
		if got := runOut(l, now.Add(after)); got != want {
			t.Errorf("after %s: %v", after, got)
		}
	}
	if !runOut(&coordinationv1.Lease{}, now) {
		t.Error("a lease that says nothing counts")
	}
	later := ownLease("a", "host", "another", "192.0.2.1:6443", metav1.NewMicroTime(now.Add(time.Hour)))
	if !later.repair(l) || *l.Spec.HolderIdentity != "another" || runOut(l, now.Add(2*time.Hour)) {
		t.Errorf("not renewed: %+v", l.Spec)
	}
}

// A server that has started has its lease.
func TestOwnLease(t *testing.T) {
	w := start(t)
	var all coordinationv1.LeaseList
	admin := w.as("admin", "system:masters")
	eventually(t, "the server has a lease", func() bool {
		all = coordinationv1.LeaseList{}
		w.do(admin, "GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?labelSelector="+leaseLabel+"%3D"+leaseServer, nil, &all)
		return len(all.Items) > 0
	})
	if len(all.Items) != 1 || all.Items[0].Spec.HolderIdentity == nil || *all.Items[0].Spec.LeaseDurationSeconds != leaseSeconds {
		t.Errorf("%+v", all.Items)
	}
}
