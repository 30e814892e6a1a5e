package volume

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

func TestNFSOptions(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		readOnly bool
		options  []string
		flags    uintptr
		data     string
		versions []string
	}{
		{false, nil, 0, "addr=192.0.2.1", nfsVersions},
		{true, []string{"rw"}, unix.MS_RDONLY, "addr=192.0.2.1", nfsVersions},
		{false, []string{"nfsvers=4.1", "hard,noatime", "_netdev"}, unix.MS_NOATIME, "nfsvers=4.1,hard,addr=192.0.2.1", []string{""}},
		{false, []string{"addr=203.0.113.9", "retry=5", "nolock", "vers=3"}, 0, "nolock,vers=3,addr=192.0.2.1", []string{""}},
	} {
		flags, data, versions := export{NFSVolumeSource: corev1.NFSVolumeSource{ReadOnly: c.readOnly}, options: c.options}.parse(address)
		if flags != c.flags || strings.Join(data, ",") != c.data || !slices.Equal(versions, c.versions) {
			t.Errorf("%v: flags %x, data %q, versions %q", c.options, flags, data, versions)
		}
	}
}

// Without NFS in the kernel, or without the server, the pod is told.
func TestNFSFails(t *testing.T) {
	b := newBench(t)
	vol := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "127.0.0.1", Path: "/none"}}}
	err := b.failure(t, podWith(vol))
	if !strings.Contains(err.Error(), `MountVolume.SetUp failed for volume "v" : mount 127.0.0.1:/none: `) {
		t.Error(err)
	}
	t.Log(err)
}

// A server that is silent holds up its own volume alone, and its pod's end.
func TestSlowMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		answer, begun := make(chan error), 0
		mount := func() error { begun++; return <-answer }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.do(ctx, "/pods/u1/volumes/v", mount); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if s.under("/pods/u1") == "" || s.under("/pods/u") != "" {
			t.Error("the mount under way is not known by its pod")
		}
		done := make(chan error)
		go func() { done <- s.do(t.Context(), "/pods/u1/volumes/v", mount) }()
		synctest.Wait()
		answer <- nil
		if err := <-done; err != nil || begun != 1 || s.under("/pods/u1") != "" {
			t.Errorf("%v; begun %d times", err, begun)
		}
	})
}
