package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/node/agent"
)

// canary is what no container may read or change: files of the host, and settings
// of its kernel.
type canary struct {
	dir, file, secret string
	before            map[string]string
}

// settings of the kernel that a hostile process would change first.
var kernelSettings = []string{
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/fs/file-max",
	"/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/modules", "/proc/swaps",
}

func newCanary(n *node) *canary {
	n.Helper()
	c := &canary{dir: filepath.Join(home, n.name+"-canary"), secret: "the-secret-of-" + n.name}
	c.file = filepath.Join(c.dir, "secret")
	n.must(os.MkdirAll(c.dir, 0o755))
	n.must(os.WriteFile(c.file, []byte(c.secret), 0o666))
	old := time.Unix(1_000_000_000, 0)
	n.must(os.Chtimes(c.file, old, old))
	n.must(os.Chtimes(c.dir, old, old))
	c.before = c.state()
	return c
}

// state is all that may not change, but for when the secret was read.
func (c *canary) state() map[string]string {
	s := map[string]string{}
	for _, path := range append([]string{c.file}, kernelSettings...) {
		b, err := os.ReadFile(path)
		s[path] = fmt.Sprint(string(b), err)
	}
	entries, err := os.ReadDir(c.dir)
	s[c.dir] = fmt.Sprint(entries, err)
	for _, path := range []string{c.dir, c.file} {
		if info, err := os.Stat(path); err == nil {
			s[path+" changed"] = fmt.Sprint(info.ModTime(), info.Mode())
		}
	}
	agents, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	for _, path := range agents {
		b, _ := os.ReadFile(path)
		s[path] = string(b)
	}
	return s
}

// check says what has become of it, given what the intruders wrote.
func (c *canary) check(t *testing.T, outputs ...string) {
	t.Helper()
	for what, was := range c.before {
		if now := c.state()[what]; now != was {
			t.Errorf("%s changed from %q to %q", what, was, now)
		}
	}
	for _, out := range outputs {
		if strings.Contains(out, c.secret) {
			t.Errorf("an intruder has read the secret: %s", out)
		}
	}
}

// refused fails for every attempt that succeeded, but for those that may.
func refused(t *testing.T, out string, may ...string) {
	t.Helper()
	tried := 0
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, " refused: ") {
			tried++
		}
		if !strings.Contains(line, " SUCCEEDED") {
			continue
		}
		if what, _, _ := strings.Cut(line, " SUCCEEDED"); !contains(may, what) {
			t.Errorf("an attempt succeeded: %s", line)
		}
	}
	if tried == 0 {
		t.Errorf("nothing was tried: %q", out)
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// kinds of pods that are attacked from: an ordinary one, whose root is in name the
// host's, and one with a user namespace of its own.
var cells = map[string]func(*corev1.Pod){
	"plain": func(*corev1.Pod) {},
	"userns": func(p *corev1.Pod) {
		no := false
		p.Spec.HostUsers = &no
	},
	"unprivileged": func(p *corev1.Pod) {
		user, yes := int64(1000), true
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	},
	// Even without a filter, capabilities and mounts hold.
	"unfiltered": func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
	},
}

// open are the calls that are harmless without the filter: they make namespaces of
// the container's own, keys of its own and rings of its own.
var open = []string{"keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup", "unshare user", "clone user", "perf_event_open"}

// Everything that a process can try from within a container, from containers of
// several kinds, with a canary on the host.
func TestContainment(t *testing.T) {
	n := newNode(t, nil)
	c := newCanary(n)
	var disk unix.Stat_t
	n.must(unix.Stat(home, &disk))
	number := fmt.Sprintf("%d:%d", unix.Major(disk.Dev), unix.Minor(disk.Dev))
	for kind, set := range cells {
		try := func(name string, args ...string) string {
			t.Helper()
			p := n.pod(kind+"-"+name, args...)
			set(p)
			out, ended := n.run(p)
			if st := ended.Status.ContainerStatuses[0].State.Terminated; st == nil || st.Reason == "StartError" {
				t.Errorf("%s %s did not run: %+v", kind, name, ended.Status)
			}
			return out
		}
		calls := try("calls", "calls")
		devices := try("devices", "devices", number)
		files := try("files", "files")
		mounts := try("mounts", "mounts")
		groups := try("groups", "cgroups")
		climb := try("climb", "climb", c.file)
		fds := try("fds", "descriptors", "then", "processes")
		t.Run(kind, func(t *testing.T) {
			if kind == "unfiltered" {
				refused(t, calls, open...)
			} else {
				refused(t, calls)
			}
			refused(t, devices)
			refused(t, files)
			refused(t, mounts)
			refused(t, groups)
			c.check(t, calls, devices, files, mounts, groups, climb, fds)
			if !strings.Contains(climb, "climbed") || strings.Contains(climb, "SUCCEEDED") {
				t.Errorf("climbing: %s", climb)
			}
			judgeDescriptors(t, fds)
			if !strings.Contains(devices, "dev: fd full mqueue null ptmx pts random shm stderr stdin stdout termination-log tty urandom zero\n") {
				t.Errorf("devices: %s", devices)
			}
		})
	}
}

var given = regexp.MustCompile(`^fd (0 /dev/null|[12] .*/run/[0-9a-f]{64}/std(out|err)|[3-9] (/sys/fs/cgroup/.*)?|[3-9])$`)

// judgeDescriptors: three descriptors, none of a file of the host, and nobody else
// in sight.
func judgeDescriptors(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		switch f[0] {
		case "fd":
			// Its log's pipes have names, which say nothing but its own ID; the rest
			// is what its language's runtime opens.
			if !given.MatchString(strings.TrimSpace(line)) {
				t.Errorf("the container was given %q", line)
			}
		case "process":
			if f[1] != "1" {
				t.Errorf("the container sees %q", line)
			}
		}
	}
	if strings.Contains(out, inside) || strings.Contains(strings.SplitAfter(out, "environ")[1], home) {
		t.Errorf("the container knows where it is on the host: %s", out)
	}
}

// Limits hold against those who run into them on purpose, and their neighbours
// don't notice.
func TestLimitsHold(t *testing.T) {
	pids := int64(60)
	n := newReachable(t, func(c *agent.Config) { c.PidsLimit = pids })
	neighbour := n.pod("neighbour", "serve", "8080")
	neighbour.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: httpProbe(8080), PeriodSeconds: 1, FailureThreshold: 3, TimeoutSeconds: 60}
	n.create(neighbour)
	n.ready("neighbour")

	n.create(n.pod("forks", "fork", "200"))
	forks := regexp.MustCompile(`forked (\d+)`)
	n.await("forks", "has forked", func(p *corev1.Pod) bool { return forks.MatchString(n.output(p, "c")) })
	if made, _ := strconv.Atoi(forks.FindStringSubmatch(n.output(n.get("forks"), "c"))[1]); made < 2 || made >= int(pids) {
		t.Errorf("%d processes under a limit of %d", made, pids)
	}

	hog := n.pod("hog", "eat", "200")
	limit(hog, corev1.ResourceMemory, "40Mi")
	_, ended := n.run(hog)
	if st := ended.Status.ContainerStatuses[0].State.Terminated; st == nil || st.Reason != "OOMKilled" || st.ExitCode != 137 {
		t.Errorf("a hog of memory ended as %+v", ended.Status.ContainerStatuses[0].State)
	}

	slow := n.pod("slow", "burn", "1000")
	limit(slow, corev1.ResourceCPU, "200m")
	out, _ := n.run(slow)
	// A second of wall time at a fifth of a CPU; the quota is for 100 ms each.
	if burnt, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(out, "burnt"))); err != nil || burnt > 400 {
		t.Errorf("%q of 1000 ms at a limit of 200m", out)
	}

	full := n.pod("full", "fill", "/small/x", "20")
	size := resource.MustParse("8Mi")
	full.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}}}
	full.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/small"}}
	if out, _ := n.run(full); !strings.Contains(out, "no space left on device") {
		t.Errorf("20 MiB in a volume of 8: %q", out)
	}
	if p := n.get("neighbour"); !isReady(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the neighbour: %+v", p.Status.ContainerStatuses)
	}
}

func limit(p *corev1.Pod, what corev1.ResourceName, amount string) {
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{what: resource.MustParse(amount)}
}

// In a user namespace the container's root is nobody outside; volumes that it was
// given are its own.
func TestUserNamespace(t *testing.T) {
	n := newNode(t, nil)
	maps := n.pod("maps", "cat", "/proc/self/uid_map")
	no := false
	maps.Spec.HostUsers = &no
	out, _ := n.run(maps)
	f := strings.Fields(out)
	if len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "65536" {
		t.Fatalf("uid_map %q", out)
	}
	// A file that only the host's root may read, in a directory that the pod is given.
	dir := filepath.Join(home, "given")
	n.must(os.MkdirAll(dir, 0o777))
	n.must(os.Chmod(dir, 0o777))
	n.must(os.WriteFile(filepath.Join(dir, "private"), []byte("for root"), 0o600))
	read := n.pod("reads", "cat", "/given/private")
	read.Spec.HostUsers = &no
	read.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	read.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/given"}}
	// As upstream has it, volumes are seen through the same map: what is root's
	// outside is root's inside, and the other way round.
	if got, ended := n.run(read); got != "for root\n" {
		t.Errorf("a file of the host's root in a volume: %q, %v", got, ended.Status.ContainerStatuses)
	}
}

// Two pods do not reach into each other's traffic by raw sockets.
func TestSpoofing(t *testing.T) {
	n := newNode(t, nil)
	n.create(n.pod("victim", "listen", "7000"))
	n.create(n.pod("other", "listen", "7000"))
	victim, other := n.ready("victim").Status.PodIP, n.ready("other").Status.PodIP
	out, _ := n.run(n.pod("spoofer", "spoof", victim, "7000", other))
	until(t, "the honest packet arrives", func() bool { return strings.Contains(n.output(n.get("victim"), "c"), "honest") })
	if got := n.output(n.get("victim"), "c"); strings.Contains(got, "forged") {
		t.Errorf("the victim heard:\n%sof a spoofer that says:\n%s", got, out)
	}
	// Who lied about the link must not get what is for the other.
	again, _ := n.run(n.pod("honest", "spoof", other, "7000", other))
	until(t, "the other is reached", func() bool { return strings.Contains(n.output(n.get("other"), "c"), "honest") })
	for _, said := range []string{out, again} {
		if strings.Count(said, "SUCCEEDED") < 5 {
			t.Errorf("a spoofer could not even try: %s", said)
		}
	}
	if strings.Contains(n.output(n.get("other"), "c"), "forged") {
		t.Errorf("the other heard:\n%s", n.output(n.get("other"), "c"))
	}
}
