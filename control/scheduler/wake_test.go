package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// life is a random cluster: things come, change and go, and whoever fits because of
// it must wake.
type life struct {
	t    *testing.T
	r    *rand.Rand
	desk *scheduler.Desk
	*shelf
	nodes  map[string]*corev1.Node
	placed map[string]*corev1.Pod
	spaces map[string]*corev1.Namespace
	driver *storagev1.CSIDriver
	count  int
	// lines are the pods that have come to wait.
	lines map[string]string
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, r: rand.New(rand.NewPCG(seed, 1)), shelf: newShelf(), nodes: map[string]*corev1.Node{}, placed: map[string]*corev1.Pod{}, spaces: map[string]*corev1.Namespace{}, lines: map[string]string{}}
	l.desk = scheduler.NewDesk(profile.Default()[0], l)
	l.read(t, strings.Fields("class fast wait provisioner=disk"))
	return l
}

// CSIDriver implements scheduler.Storage.
func (l *life) CSIDriver(name string) *storagev1.CSIDriver {
	if l.driver == nil || l.driver.Name != name {
		return nil
	}
	return l.driver
}

// pick is one of some words.
func (l *life) pick(words ...string) string { return words[l.r.IntN(len(words))] }

// some keeps each part with even odds.
func (l *life) some(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if l.r.IntN(3) == 0 {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, " ")
}

// anyOf is one of a map's values; nil when it is empty.
func anyOf[T any](r *rand.Rand, all map[string]T) (one T) {
	if len(all) == 0 {
		return one
	}
	return all[slices.Sorted(maps.Keys(all))[r.IntN(len(all))]]
}

func (l *life) nodeLine(name string) string {
	return name + " " + l.some("label=zone="+l.pick("a", "b"), "label=rack="+l.pick("1", "2"), "label=disk=ssd", "taint=gpu=x:NoSchedule",
		"cordoned", "label=topology.kubernetes.io/zone="+l.pick("a", "b")) + " cpu=" + l.pick("1", "2", "3") + " pods=" + l.pick("1", "3", "110")
}

// podLine is a pod; wishes say whether it may be hard to please.
func (l *life) podLine(wishes bool) string {
	line := fmt.Sprintf("p%d label=app=%s cpu=%s image=same", l.count, l.pick("x", "y"), l.pick("100m", "1", "2"))
	if l.r.IntN(4) == 0 {
		line += " in=other"
	}
	line += " " + l.some("port=80", "tolerate=gpu", "prio="+l.pick("1", "2"),
		l.pick("far=app="+l.pick("x", "y")+"@"+l.pick("zone", "rack", "kubernetes.io/hostname"), "team="+l.pick("red", "blue")))
	if !wishes {
		return line
	}
	return line + " " + l.some("select=disk=ssd", "spread="+l.pick("zone", "rack")+":1", "near=app="+l.pick("x", "y")+"@"+l.pick("zone", "rack"),
		"claim="+l.pick("c1", "c2", "c3"))
}

func (l *life) pod(line string) *corev1.Pod {
	p, _ := pod(l.t, strings.Fields(line))
	p.Spec.SchedulerName = corev1.DefaultSchedulerName
	if len(p.Spec.Volumes) > 0 {
		p.Namespace = "default" // the shelf has one
	}
	if near := p.Spec.Affinity; near != nil && len(near.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution) > 0 && l.r.IntN(3) == 0 {
		more := term("app=" + l.pick("x", "y") + "@" + l.pick("zone", "rack"))
		near.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(near.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, more)
	}
	return p
}

// Whatever happens: no pod goes on waiting for a change that would fit somewhere.
func TestWhoFitsWakes(t *testing.T) {
	for seed := range uint64(wakeSeeds) {
		l := newLife(t, seed)
		if story, missed := l.live(); len(missed) > 0 {
			for name, why := range missed {
				t.Errorf("seed %d: nobody woke %q, which %s, after\n%s", seed, l.lines[name], why, strings.Join(story[max(0, len(story)-10):], "\n"))
			}
		}
	}
}

// live lets things happen until somebody is missed.
func (l *life) live() (story []string, missed map[string]string) {
	for range wakeSteps {
		for tries := 0; l.desk.Asleep() < wakeAsleep && tries < 2*wakeAsleep; tries++ {
			l.wait()
			l.desk.Try()
		}
		if what := l.step(); what != "" {
			story = append(story, what)
		}
		l.desk.Try()
		if missed = l.desk.Missed(); len(missed) > 0 {
			return story, missed
		}
	}
	return story, nil
}

const (
	wakeSeeds, wakeSteps = 60, 150
	// wakeAsleep are the pods that wait at any time, as far as they do not fit.
	wakeAsleep = 8
)

// wait lets one more pod in that has no node.
func (l *life) wait() {
	l.count++
	line := l.podLine(true)
	p := l.pod(line)
	l.lines[p.Name] = line
	l.desk.Pod(nil, p)
}

// step makes one thing happen, and says what.
func (l *life) step() string {
	events := []func() string{
		l.nodeChanges, l.nodeChanges, l.nodeGoes, l.podComes, l.podComes, l.podGoes, l.podGoes, l.podEnds, l.podRelabelled,
		l.namespaceChanges, l.claimChanges, l.volumeChanges, l.limitChanges, l.driverChanges, l.classChanges, l.spaceChanges,
	}
	return events[l.r.IntN(len(events))]()
}

func (l *life) nodeChanges() string {
	name := fmt.Sprintf("n%d", l.r.IntN(4))
	line := l.nodeLine(name)
	now := node(l.t, strings.Fields(line))
	l.desk.Node(l.nodes[name], now)
	l.nodes[name] = now
	return "node " + line
}

func (l *life) nodeGoes() string {
	n := anyOf(l.r, l.nodes)
	if n == nil || l.r.IntN(3) > 0 {
		return ""
	}
	delete(l.nodes, n.Name)
	l.desk.Node(n, nil)
	return "remove " + n.Name
}

func (l *life) podComes() string {
	n := anyOf(l.r, l.nodes)
	if n == nil || len(l.placed) > 6 {
		return ""
	}
	l.count++
	line := l.podLine(false)
	if claim := anyOf(l.r, l.claims); claim != nil && l.Volume(claim.Spec.VolumeName) != nil && claim.Status.Phase != corev1.ClaimLost {
		line += " claim=" + claim.Name
	}
	p := l.pod(line)
	p.Spec.NodeName = n.Name
	l.placed[p.Name] = p
	l.desk.Pod(nil, p)
	return "pod on " + n.Name + ": " + line
}

func (l *life) podGoes() string {
	p := anyOf(l.r, l.placed)
	if p == nil {
		return ""
	}
	delete(l.placed, p.Name)
	claim := ""
	if len(p.Spec.Volumes) > 0 && l.r.IntN(2) == 0 {
		claim = p.Spec.Volumes[0].Name
	}
	was := l.claims[claim]
	if was == nil || l.used(claim) {
		l.desk.Pod(p, nil)
		return "pod gone: " + p.Name
	}
	delete(l.claims, claim) // we may hear of its end first
	l.desk.Tell(scheduler.Change{Kind: scheduler.ClaimChanged, Old: was})
	l.desk.Pod(p, nil)
	return "pod gone: " + p.Name + ", after claim " + claim
}

// used says whether a pod on a node has the claim, which protects it.
func (l *life) used(claim string) bool {
	for _, p := range l.placed {
		if slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == claim }) {
			return true
		}
	}
	return false
}

func (l *life) changePod(change func(*corev1.Pod)) string {
	p := anyOf(l.r, l.placed)
	if p == nil {
		return ""
	}
	now := p.DeepCopy()
	change(now)
	l.placed[p.Name] = now
	l.desk.Pod(p, now)
	return p.Name
}

func (l *life) podEnds() string {
	return "pod ends: " + l.changePod(func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} })
}

func (l *life) podRelabelled() string {
	return "pod relabelled: " + l.changePod(func(p *corev1.Pod) { p.Labels["app"] = l.pick("x", "y", "z") })
}

func (l *life) namespaceChanges() string {
	name, team := l.pick("default", "other"), l.pick("red", "blue")
	now := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
	l.desk.Namespace(l.spaces[name], now)
	l.spaces[name] = now
	return "namespace " + name + " of " + team
}

// claimChanges makes a claim, has it find or lose its volume, or ends it; what it asks
// for never changes.
func (l *life) claimChanges() string {
	name := l.pick("c1", "c2", "c3")
	was := l.claims[name]
	if l.used(name) {
		return ""
	}
	if was != nil && l.r.IntN(3) == 0 {
		delete(l.claims, name)
		l.desk.Tell(scheduler.Change{Kind: scheduler.ClaimChanged, Old: was})
		return "claim gone: " + name
	}
	line := "claim " + name + map[string]string{"c1": " class=fast", "c2": " class=slow", "c3": " class=fast exclusive"}[name] + " size=1Gi"
	c := scheduler.Change{Kind: scheduler.ClaimChanged}
	if was != nil {
		if c.Old = was; was.Spec.VolumeName != "" {
			line += " bound=" + was.Spec.VolumeName + " " + l.some("lost")
		}
	}
	if !strings.Contains(line, "bound=") {
		line += " " + l.some("bound="+l.pick("v1", "v2"), "selected="+l.pick("n1", "n2"))
	}
	l.read(l.t, strings.Fields(line))
	c.New = l.claims[name]
	l.desk.Tell(c)
	return line
}

func (l *life) volumeChanges() string {
	name := l.pick("v1", "v2")
	was := l.Volume(name)
	l.volumes = slices.DeleteFunc(l.volumes, func(v *corev1.PersistentVolume) bool { return v.Name == name })
	if was != nil && l.r.IntN(3) == 0 && !l.bound(name) {
		l.desk.Tell(scheduler.Change{Kind: scheduler.VolumeChanged, Old: was})
		return "volume gone: " + name
	}
	line := "volume " + name + map[string]string{"v1": " class=fast driver=disk", "v2": " class=slow"}[name] + " size=1Gi " +
		l.some("at=zone="+l.pick("a", "b"), "label=topology.kubernetes.io/zone="+l.pick("a", "b"))
	l.read(l.t, strings.Fields(line))
	c := scheduler.Change{Kind: scheduler.VolumeChanged, New: l.Volume(name)}
	if was != nil {
		c.Old = was
	}
	l.desk.Tell(c)
	return line
}

// bound says whether a claim that a pod on a node has is bound to a volume, which
// protects it.
func (l *life) bound(volume string) bool {
	for name, claim := range l.claims {
		if claim.Spec.VolumeName == volume && l.used(name) {
			return true
		}
	}
	return false
}

func (l *life) limitChanges() string {
	name := fmt.Sprintf("n%d", l.r.IntN(4))
	c := scheduler.Change{Kind: scheduler.CSINodeChanged}
	if was := l.shelf.nodes[name]; was != nil {
		c.Old = was
	}
	line := "limit " + name + " disk " + l.pick("0", "1", "2")
	l.read(l.t, strings.Fields(line))
	c.New = l.shelf.nodes[name]
	l.desk.Tell(c)
	return line
}

// driverChanges has the driver say, or not, how much space it has, and whether it
// must be installed.
func (l *life) driverChanges() string {
	c := scheduler.Change{Kind: scheduler.CSIDriverChanged}
	if l.driver != nil {
		c.Old = l.driver
	}
	if l.driver = nil; l.r.IntN(3) > 0 {
		tells, demands := l.r.IntN(2) == 0, l.r.IntN(2) == 0
		l.driver = &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "disk"}, Spec: storagev1.CSIDriverSpec{
			StorageCapacity: &tells, PreventPodSchedulingIfMissing: &demands,
		}}
		c.New = l.driver
	}
	l.desk.Tell(c)
	if l.driver == nil {
		return "driver gone"
	}
	return fmt.Sprintf("driver tells %v, demands %v", *l.driver.Spec.StorageCapacity, *l.driver.Spec.PreventPodSchedulingIfMissing)
}

func (l *life) classChanges() string {
	was := l.classes["slow"]
	c := scheduler.Change{Kind: scheduler.ClassChanged}
	if was != nil {
		c.Old = was
		if l.r.IntN(3) == 0 {
			delete(l.classes, "slow")
			l.desk.Tell(c)
			return "class gone"
		}
	}
	line := "class slow wait provisioner=disk"
	if was == nil || was.AllowedTopologies != nil {
		line += l.pick("", " zone=a", " zone=b")
	}
	l.read(l.t, strings.Fields(line))
	c.New = l.classes["slow"]
	l.desk.Tell(c)
	return line
}

func (l *life) spaceChanges() string {
	size := resource.MustParse(l.pick("100Mi", "2Gi"))
	c := scheduler.Change{Kind: scheduler.CapacityChanged}
	if len(l.capacities) > 0 {
		c.Old = l.capacities[0]
	}
	now := &storagev1.CSIStorageCapacity{StorageClassName: "fast", Capacity: &size, NodeTopology: &metav1.LabelSelector{}}
	l.capacities, c.New = []*storagev1.CSIStorageCapacity{now}, now
	l.desk.Tell(c)
	return "space " + size.String()
}
