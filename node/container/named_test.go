package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Before Linux 6.7 an overlay of several layers has a name while it is made. Nobody
// sees it: neither the host nor the container, by a list of calls nor by a stage.
func TestNamedOverlay(t *testing.T) {
	b := newBox(t)
	b.named = true
	top, volume := t.TempDir(), []string{t.TempDir(), t.TempDir()}
	for i, dir := range append(volume, top) {
		if err := os.WriteFile(filepath.Join(dir, "layer"+itoa(i)), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for first, change := range map[string]func(*CreateConfig){
		"sampan-init": func(*CreateConfig) {},
		"sampan-keeper": func(c *CreateConfig) { // an image as a volume
			c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{
				Source: "overlay", Destination: "/image", Type: "overlay", Options: []string{"ro", "lowerdir+=" + volume[0], "lowerdir+=" + volume[1]},
			})
		},
	} {
		cfg := b.config(first, probeSpec(strings.Split("read /layer2 ; write /made ; read /image/layer0 ; read /image/layer1 ; write /image/new", " ")...))
		cfg.Rootfs.Lower = []string{top, built.rootfs}
		change(&cfg)
		if err := b.Create(b.context(), cfg); err != nil {
			t.Fatal(err)
		}
		s, err := b.Status(first)
		if err != nil {
			t.Fatal(err)
		}
		if got := firstIs(t, s.PID); got != first {
			t.Errorf("the first process is %q, want %q", got, first)
		}
		if mounts := mountsBelow(t, b.dir); mounts != "" {
			t.Errorf("the host sees:\n%s", mounts)
		}
		if err := b.Start(b.context(), first); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Wait(b.context(), first); err != nil {
			t.Fatal(err)
		}
		want := "/layer2 ok text\nwrite /made ok\n/image/layer0 ok text\n/image/layer1 ok text\nwrite /image/new read-only file system\n"
		if first == "sampan-init" {
			want = "/layer2 ok text\nwrite /made ok\n/image/layer0 no such file or directory \n/image/layer1 no such file or directory \nwrite /image/new no such file or directory\n"
		}
		if got := strings.ReplaceAll(b.log(cfg.LogPath), "stdout F ", ""); got != want {
			t.Errorf("saw\n%swant\n%s", got, want)
		}
		if raw, err := os.ReadFile(filepath.Join(cfg.Rootfs.Upper, "made")); err != nil || string(raw) != "x" {
			t.Errorf("in the upper directory: %q, %v", raw, err)
		}
	}
}

// mountsBelow are the overlays of the host's mount table that are below a directory.
func mountsBelow(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found strings.Builder
	for line := range strings.Lines(string(raw)) {
		if strings.Contains(line, " "+dir+"/") && strings.Contains(line, " overlay ") {
			found.WriteString(line)
		}
	}
	return found.String()
}
