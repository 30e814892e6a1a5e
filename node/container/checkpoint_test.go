package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// TestMountinfo reads the kernel's form.
func TestMountinfo(t *testing.T) {
	const text = `133 156 0:54 / / rw,relatime - overlay overlay rw,lowerdir=/a
134 133 0:56 / /proc ro,nosuid shared:7 master:3 - proc proc rw
135 133 0:57 / /with\040space\134 rw - tmpfs tmpfs ro,size=1k
`
	got, err := parseMountinfo(strings.NewReader(text))
	want := []mounted{{133, "0:54", "/", "/", "overlay", 0}, {134, "0:56", "/", "/proc", "proc", unix.MS_RDONLY | unix.MS_NOSUID}, {135, "0:57", "/", `/with space\`, "tmpfs", 0}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	for _, bad := range []string{"nonsense\n", "x 1 0:1 / / rw - tmpfs t rw\n", "1 2 3 4 5 6 7 8\n"} {
		if _, err := parseMountinfo(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestUndumpable: criu is not even started for what it could not bring back.
func TestUndumpable(t *testing.T) {
	for want, c := range map[string]struct {
		rec record
		p   plan.Plan
	}{
		"":                  {},
		"another runtime":   {rec: record{Runtime: "/usr/bin/crun"}},
		"user namespace":    {p: plan.Plan{Process: plan.Process{UserNS: "/x"}}},
		"process namespace": {rec: record{SharedPID: true}},
		"terminal":          {rec: record{Child: plan.Child{TTY: true}}},
		"image as a volume": {p: plan.Plan{Mounts: []plan.Mount{{Type: "overlay"}}}},
	} {
		if got := undumpable(&c.rec, &c.p); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestExceeds: what a restored thread may have is what a program of the container could
// have come to.
func TestExceeds(t *testing.T) {
	const def, all = 0xa80425fb, 1<<40 - 1
	status := func(change ...string) string {
		s := "Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t5 \nCapInh:\t0\nCapPrm:\ta80425fb\nCapEff:\ta80425fb\nCapBnd:\ta80425fb\nCapAmb:\t0\nNoNewPrivs:\t0\nSeccomp:\t2\n"
		return strings.NewReplacer(change...).Replace(s)
	}
	usual := plan.Process{Caps: &plan.Caps{Bounding: def, Effective: def, Permitted: def}, Seccomp: []byte("12345678")}
	restricted := plan.Process{UID: 1, GID: 1, Groups: []int{5}, Caps: &plan.Caps{Bounding: def}, NoNewPrivs: true}
	privileged := plan.Process{}
	for _, c := range []struct {
		name, status string
		may          plan.Process
		want         string
	}{
		{"usual", status(), usual, ""},
		{"privileged", status("a80425fb", "ffffffffff", "Seccomp:\t2", "Seccomp:\t0"), privileged, ""},
		{"no filter", status("Seccomp:\t2", "Seccomp:\t0"), usual, "seccomp"},
		{"strict mode is no filter", status("Seccomp:\t2", "Seccomp:\t1"), usual, "seccomp"},
		{"all capabilities", status("a80425fb", "ffffffffff"), usual, "capabilities"},
		{"one more to inherit", status("CapInh:\t0", "CapInh:\t200000"), usual, "CapInh"},
		{"a wider bound", status("CapBnd:\ta80425fb", "CapBnd:\ta82425fb"), usual, "CapBnd"},
		{"user without", status("CapPrm:\ta80425fb", "CapPrm:\t0", "CapEff:\ta80425fb", "CapEff:\t0", "NoNewPrivs:\t0", "NoNewPrivs:\t1"), restricted, ""},
		{"may gain", status("CapPrm:\ta80425fb", "CapPrm:\t0", "CapEff:\ta80425fb", "CapEff:\t0"), restricted, "no_new_privs"},
		{"has gained", status("NoNewPrivs:\t0", "NoNewPrivs:\t1"), restricted, "capabilities"},
		{"is root", status("Uid:\t1\t1\t1\t1", "Uid:\t1\t0\t1\t1", "CapPrm:\ta80425fb", "CapPrm:\t0", "CapEff:\ta80425fb", "CapEff:\t0", "NoNewPrivs:\t0", "NoNewPrivs:\t1"), restricted, "users"},
		{"is another", status("Uid:\t1\t1\t1\t1", "Uid:\t2\t2\t2\t2", "CapPrm:\ta80425fb", "CapPrm:\t0", "CapEff:\ta80425fb", "CapEff:\t0", "NoNewPrivs:\t0", "NoNewPrivs:\t1"), restricted, "users"},
		{"is in another group", status("Groups:\t5", "Groups:\t5 0", "CapPrm:\ta80425fb", "CapPrm:\t0", "CapEff:\ta80425fb", "CapEff:\t0", "NoNewPrivs:\t0", "NoNewPrivs:\t1"), restricted, "groups"},
		{"nothing known", "", usual, "seccomp"},
		{"no capabilities known", "Seccomp:\t2\n", usual, "capabilities"},
	} {
		if got := exceeds(c.status, &c.may); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if uint64(all) <= def {
		t.Error("the test's own capabilities")
	}
}

// filters writes criu's seccomp.img.
func filters(entries ...[]byte) []byte {
	var list []byte
	for _, e := range entries {
		list = protowire.AppendBytes(protowire.AppendTag(list, 1, protowire.BytesType), e)
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 8, 12+len(list)), uint32(len(list)))
	return slices.Concat(head, list)
}

func filter(program string, before int) []byte {
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(program))
	if before >= 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(before))
	}
	return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), 0)
}

// TestFilters: every chain begins with the container's own filter.
func TestFilters(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"own", filters(filter("own", -1)), "true"},
		{"own, and one on it", filters(filter("own", -1), filter("more", 0)), "true"},
		{"own twice", filters(filter("own", -1), filter("own", -1)), "true"},
		{"another", filters(filter("weak", -1)), "false"},
		{"another beside", filters(filter("own", -1), filter("weak", -1)), "false"},
		{"none is first", filters(filter("own", 0)), "false"},
		{"none", filters(), "false"},
		{"cut short", filters(filter("own", -1))[:15], "error"},
		{"empty", nil, "error"},
		{"nonsense", filters([]byte{0xff, 0xff}), "error"},
	} {
		ok, err := onlyOver(c.file, []byte("own"))
		got := map[bool]string{true: "true", false: "false"}[ok]
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
	dir := t.TempDir()
	if err := judgeFilters(dir, nil); err != nil {
		t.Errorf("without a profile: %v", err)
	}
	if err := judgeFilters(dir, []byte("own")); err == nil {
		t.Error("images without filters were taken")
	}
}

// TestThaw: a container that stands still for a checkpoint when its runtime dies goes on
// with the next.
func TestThaw(t *testing.T) {
	h := newHome(t)
	r := h.open()
	b := &box{r, t, filepath.Dir(h.cfg.Run)}
	b.start(b.config("c", probeSpec("sleep", "1h")))
	c, err := r.find("c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.standStill(); err != nil {
		t.Fatal(err)
	}
	if !c.group.Frozen() {
		t.Fatal("it is not frozen")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.open()
	defer r.Close()
	if c, err = r.find("c"); err != nil {
		t.Fatal(err)
	}
	if c.group.Frozen() {
		t.Error("it stands still")
	}
	if _, err := os.Stat(r.file("c", frozenFile)); !os.IsNotExist(err) {
		t.Errorf("the note is left: %v", err)
	}
}

// TestNeverJudged: what came out of a checkpoint and was not judged when its runtime died
// does not go on with the next, and is not started.
func TestNeverJudged(t *testing.T) {
	h := newHome(t)
	r := h.open()
	b := &box{r, t, filepath.Dir(h.cfg.Run)}
	if err := b.Create(b.context(), b.config("c", probeSpec("sleep", "1h"))); err != nil {
		t.Fatal(err)
	}
	c, err := r.find("c")
	if err != nil {
		t.Fatal(err)
	}
	pid := c.rec.PID
	c.rec.Unjudged = true
	c.rec.PID = 0 // which is not written down before the start
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.standStill(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = h.open()
	defer r.Close()
	if err := r.Start(t.Context(), "c"); !errors.Is(err, ErrState) {
		t.Errorf("it was started: %v", err)
	}
	if _, err := r.Wait(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if startTicks(pid) != 0 {
		t.Errorf("process %d lives on", pid)
	}
}

// TestOutside: what a container has from outside, by name, wherever the image leads the
// mount to.
// What hides files in a checkpoint of another runtime is the null device, by whatever
// label that runtime gives it.
func TestMasksOutside(t *testing.T) {
	if got := masksOutside(nil); got != nil {
		t.Errorf("nothing is hidden: %q", got)
	}
	got := strings.Join(masksOutside([]string{"/proc/keys", "/proc/a[b]", "/proc/acpi"}), " ")
	if want := "mnt[/dev/null]:/dev/null mnt[/proc/keys]:/dev/null mnt[/proc/acpi]:/dev/null"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOutside(t *testing.T) {
	b := newBox(t)
	spec := probeSpec("sleep", "1h")
	source := filepath.Join(b.dir, "source")
	if err := os.WriteFile(source, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Source: source, Destination: "/tmp/bound", Type: "bind", Options: []string{"bind", "ro"}})
	cfg := b.config("c", spec)
	b.start(cfg)
	c, err := b.find("c")
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := b.translate(&cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dumpOf(&c.rec, p)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(d.External, " ")
	if !strings.Contains(all, "mnt[/tmp/bound]:/tmp/bound") {
		t.Errorf("no bind mount among %s", all)
	}
	for i, name := range d.Descriptors {
		if !strings.HasPrefix(name, "file[") || !strings.Contains(all, name) {
			t.Errorf("descriptor %d is %q among %s", i, name, all)
		}
	}
	if bytes.Count([]byte(all), []byte("file[")) != 3 {
		t.Errorf("descriptors are told twice: %s", all)
	}
}
