package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rogue is a plugin that does for each pod, by its name, what a plugin should not.
const rogue = `#!/bin/sh
dir=$(dirname "$0")
case "$CNI_COMMAND-$CNI_CONTAINERID" in
ADD-hangs) sleep 100000 & echo $$ > "$dir/pid.new"; mv "$dir/pid.new" "$dir/pid"; wait;;
ADD-endless) cat /dev/zero;;
ADD-complains) head -c 3000000 /dev/zero | tr '\0' x >&2; echo >&2 'at the end'; exit 1;;
ADD-html) echo '<html>no</html>';;
ADD-nothing) ;;
ADD-address) echo '{"cniVersion":"1.0.0","ips":[{"address":"nowhere"}]}';;
ADD-future) echo '{"cniVersion":"99.0.0","ips":[{"address":"198.51.100.7/24"}]}';;
ADD-interface) echo '{"cniVersion":"1.0.0","interfaces":[],"ips":[{"address":"198.51.100.7/24","interface":-7}]}';;
ADD-leaves) sleep 100000 & echo '{"cniVersion":"1.0.0","ips":[{"address":"198.51.100.9/24"}]}';;
ADD-*) echo '{"cniVersion":"1.0.0","ips":[{"address":"198.51.100.8/24"}]}';;
VERSION-*) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
esac
`

func rogueWorld(t *testing.T) *world {
	w := newWorld(t)
	w.must(os.WriteFile(filepath.Join(w.cfg.CNIBinDirs[0], "rogue"), []byte(rogue), 0o755))
	w.must(os.WriteFile(filepath.Join(w.cfg.CNIConfDir, "10-rogue.conflist"), []byte(`{"cniVersion":"1.0.0","name":"rogue","plugins":[{"type":"rogue"}]}`), 0o600))
	return w
}

// A plugin that prints nonsense fails its own pod, with a reason that fits on a
// screen, and no other.
func TestGarbagePlugins(t *testing.T) {
	w := rogueWorld(t)
	for pod, want := range map[string]string{
		"endless": "more than", "complains": "at the end", "html": "invalid character", "nothing": "", "address": "nowhere", "future": "99.0.0",
	} {
		s := newSpace(t)
		_, err := w.net.Attach(t.Context(), Attachment{ID: pod, NetNS: s.path})
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 2*maxPluginWords {
			t.Errorf("%s: %.300v, want %q", pod, err, want)
		}
		w.must(w.net.Detach(t.Context(), Attachment{ID: pod, NetNS: s.path}))
		w.clean(pod)
	}
	for pod, want := range map[string]string{"leaves": "[198.51.100.9]", "fine": "[198.51.100.8]", "interface": "[198.51.100.7]"} {
		if _, ips := w.pod(pod); fmt.Sprint(ips) != want {
			t.Errorf("%s has addresses %v, want %s", pod, ips, want)
		}
	}
}

// A plugin that hangs, with a child of its own that holds its output, ends with its
// time; other pods come and go meanwhile.
func TestHangingPlugin(t *testing.T) {
	w := rogueWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	s, ended := newSpace(t), make(chan error, 1)
	go func() {
		_, err := w.net.Attach(ctx, Attachment{ID: "hangs", NetNS: s.path})
		ended <- err
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var raw []byte
	for len(raw) == 0 {
		select {
		case <-tick.C:
			raw, _ = os.ReadFile(filepath.Join(w.cfg.CNIBinDirs[0], "pid"))
		case err := <-ended:
			t.Fatal("it ended: ", err)
		}
	}
	group, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	w.must(err)
	if _, ips := w.pod("meanwhile"); fmt.Sprint(ips) != "[198.51.100.8]" {
		t.Errorf("another pod has addresses %v", ips)
	}
	w.must(w.net.Detach(t.Context(), Attachment{ID: "meanwhile"}))
	w.must(w.net.Check(t.Context()))

	over := errors.New("its time is over")
	cancel(over)
	if err := <-ended; !errors.Is(err, over) {
		t.Errorf("a plugin that hangs: %v", err)
	}
	for syscall.Kill(-group, 0) == nil { // killed, and reaped a moment later
		<-tick.C
	}
	w.must(w.net.Detach(t.Context(), Attachment{ID: "hangs", NetNS: s.path}))
	w.clean("hangs")
}
