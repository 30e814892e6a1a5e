package scheduler_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// stage is a small cluster on which everybody waits for something else. What is on
// node n keeps the pods that wait off it; node m is tainted.
type stage struct {
	t     *testing.T
	desk  *scheduler.Desk
	shelf *shelf
	nodes map[string]*corev1.Node
	pods  map[string]*corev1.Pod
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, shelf: newShelf(), nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}}
	s.desk = scheduler.NewDesk(profile.Default()[0], s.shelf)
	s.shelf.read(t, strings.Fields("class fast wait provisioner=disk"))
	s.shelf.read(t, strings.Fields("claim taken class=fast size=1Gi bound=v exclusive"))
	s.shelf.read(t, strings.Fields("volume v class=fast size=1Gi"))
	s.node("n cpu=2 label=zone=a")
	s.node("m cpu=2 label=zone=b taint=gpu=x:NoSchedule")
	for _, line := range []string{"big cpu=1500m", "web label=app=web port=80", "x label=app=x", "shy far=app=s@zone", "owner-of claim=taken"} {
		s.pod(line + " on=n")
	}
	for _, line := range []string{
		"heavy cpu=1", "port port=80", "ssd select=disk=ssd", "near near=app=y@zone", "far far=app=x@zone", "shunned label=app=s",
		"spread label=app=x spread=zone:1", "lone claim=missing", "second claim=taken",
	} {
		s.pod(line)
	}
	gated, _ := pod(t, []string{"gated"})
	gated.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}}
	gated.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates"}}
	s.tell(gated)
	if fit := s.desk.Try(); len(fit) > 0 {
		t.Fatalf("these need not wait: %v", fit)
	}
	return s
}

// node tells of a node's new state.
func (s *stage) node(line string) {
	now := node(s.t, strings.Fields(line))
	s.desk.Node(s.nodes[now.Name], now)
	s.nodes[now.Name] = now
}

// pod tells of a pod, on a node or not.
func (s *stage) pod(line string) {
	p, on := pod(s.t, strings.Fields(line))
	p.Spec.NodeName = on
	s.tell(p)
}

func (s *stage) tell(p *corev1.Pod) {
	p.Spec.SchedulerName = corev1.DefaultSchedulerName
	s.desk.Pod(s.pods[p.Name], p)
	s.pods[p.Name] = p
}

func (s *stage) change(name string, change func(*corev1.Pod)) {
	now := s.pods[name].DeepCopy()
	change(now)
	s.tell(now)
}

func (s *stage) leave(name string) { s.desk.Pod(s.pods[name], nil) }

// claim tells of one that is new.
func (s *stage) claim(name string) {
	s.shelf.read(s.t, strings.Fields("claim "+name+" class=fast size=1Gi"))
	s.desk.Tell(scheduler.Change{Kind: scheduler.ClaimChanged, New: s.shelf.claims[name]})
}

// Who is tried again after what has happened, and that nobody else is.
func TestWhoWakes(t *testing.T) {
	for _, c := range []struct {
		what  string
		do    func(*stage)
		wakes string
	}{
		{"a heartbeat", func(s *stage) { s.node("n cpu=2 label=zone=a") }, ""},
		{"a node has less", func(s *stage) { s.node("n cpu=2 label=zone=a memory=1Gi") }, ""},
		{"a node has more", func(s *stage) { s.node("n cpu=4 label=zone=a") }, "heavy"},
		{"a node is labelled", func(s *stage) { s.node("n cpu=2 label=zone=a label=disk=ssd") }, "ssd"},
		{"a node moves", func(s *stage) { s.node("n cpu=2 label=zone=c") }, "far near shunned spread"},
		{"a node is cordoned", func(s *stage) { s.node("n cpu=2 label=zone=a cordoned") }, ""},
		{"a node loses its taint", func(s *stage) { s.node("m cpu=2 label=zone=b") }, "far heavy near port second shunned spread ssd"},
		{"a tainted node comes", func(s *stage) { s.node("o cpu=2 label=zone=c taint=gpu=x:NoSchedule") }, "far heavy lone near port second shunned spread"},
		{"a tainted node comes that is too small", func(s *stage) { s.node("o cpu=500m label=zone=c taint=gpu=x:NoSchedule") }, "far lone near port second shunned spread"},
		{"a node goes", func(s *stage) { s.desk.Node(s.nodes["n"], nil) }, "far near shunned spread"},
		{"somebody large leaves", func(s *stage) { s.leave("big") }, "heavy"},
		{"somebody large ends", func(s *stage) { s.change("big", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }) }, "heavy"},
		{"somebody large is resized", func(s *stage) {
			s.change("big", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = nil })
		}, "heavy"},
		{"a port becomes free", func(s *stage) { s.leave("web") }, "port"},
		{"the one to be far from leaves", func(s *stage) { s.leave("x") }, "far spread"},
		{"it is about to leave", func(s *stage) {
			s.change("x", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} })
		}, "spread"},
		{"it becomes the one to be near to", func(s *stage) {
			s.change("x", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "y"} })
		}, "far near spread"},
		{"who is shy leaves", func(s *stage) { s.leave("shy") }, "shunned"},
		{"who has the claim leaves", func(s *stage) { s.leave("owner-of") }, "second"},
		{"the one to be near to comes", func(s *stage) { s.pod("y label=app=y on=n") }, "near"},
		{"one more to be far from comes", func(s *stage) { s.pod("x2 label=app=x on=n") }, "spread"},
		{"a namesake comes to another namespace", func(s *stage) { s.pod("x3 label=app=x in=other on=n") }, ""},
		{"a namespace is new", func(s *stage) { s.desk.Namespace(nil, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}}) }, "far near shunned"},
		{"the claim is made", func(s *stage) { s.claim("missing") }, "lone"},
		{"another claim is made", func(s *stage) { s.claim("other") }, ""},
		{"a volume is made", func(s *stage) {
			s.desk.Tell(scheduler.Change{Kind: scheduler.VolumeChanged, New: &corev1.PersistentVolume{}})
		}, ""},
		{"one that waits is labelled", func(s *stage) {
			s.change("shunned", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "z"} })
		}, "shunned"},
		{"one that waits tolerates more", func(s *stage) {
			s.change("ssd", func(p *corev1.Pod) {
				p.Generation, p.Spec.Tolerations = 2, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
			})
		}, "ssd"},
		{"one that waits is told why", func(s *stage) {
			s.change("heavy", func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled}} })
		}, ""},
		{"the last gate opens", func(s *stage) { s.change("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }) }, "gated"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newStage(t)
			c.do(s)
			if got := strings.Join(s.desk.Awake(), " "); got != c.wakes {
				t.Errorf("%q woke, want %q", got, c.wakes)
			}
			s.desk.Try()
			if missed := s.desk.Missed(); len(missed) > 0 {
				t.Errorf("wait on though they fit: %v", missed)
			}
		})
	}
}

// A pod that no room was left for may go where its volume comes for another pod, also
// by another claim and another name.
func TestWakesWhereItsVolumeComes(t *testing.T) {
	s := &stage{t: t, shelf: newShelf(), nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}}
	s.desk = scheduler.NewDesk(profile.Default()[0], s.shelf)
	for _, line := range []string{
		"class fast wait provisioner=disk", "limit n disk 1",
		"volume v class=fast size=1Gi driver=disk", "volume same class=fast size=1Gi driver=disk", "volume w class=fast size=1Gi driver=disk",
		"claim mine class=fast size=1Gi bound=v", "claim yours class=fast size=1Gi bound=same", "claim other class=fast size=1Gi bound=w",
	} {
		s.shelf.read(t, strings.Fields(line))
	}
	s.shelf.Volume("same").Spec.CSI.VolumeHandle = s.shelf.Volume("v").Spec.CSI.VolumeHandle
	s.node("n cpu=2")
	s.pod("full claim=other on=n")
	s.pod("p claim=mine")
	if fit := s.desk.Try(); len(fit) > 0 {
		t.Fatalf("these need not wait: %v", fit)
	}
	s.pod("q claim=other on=n")
	if got := s.desk.Awake(); len(got) > 0 {
		t.Errorf("%q woke for another volume", got)
	}
	s.pod("r claim=yours on=n")
	if got := strings.Join(s.desk.Awake(), " "); got != "p" {
		t.Errorf("%q woke, want p", got)
	}
	if fit := strings.Join(s.desk.Try(), " "); fit != "p" {
		t.Errorf("%q fits, want p", fit)
	}
}
