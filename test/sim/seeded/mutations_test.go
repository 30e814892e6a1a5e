package seeded

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mutation is a fault put into the product on purpose.
type mutation struct {
	name     string
	profile  string // the trouble that shows it, "" for any
	file     string // from the module's root
	old, new string // old occurs once
}

// mutations are faults that such software has had. The seeds must notice each.
var mutations = []mutation{
	{"a controller does not wait to see its own writes", "", "control/controller/own.go",
		"if len(w.deleted) > 0 || o.mirror.Revision() < w.created {", "if false {"},
	{"the scheduler forgets what a node has", "", "control/scheduler/plugin/resources/resources.go",
		"if r.want > 0 && r.want > r.total-r.used {", "if r.want > r.total {"},
	{"a watch skips an event", "", "control/apiserver/cache/watch.go",
		"if event, ok := w.translate(ch); ok {", "if event, ok := w.translate(ch); ok && event.Revision%61 != 0 {"},
	{"dependents outlive their owner", "", "control/controller/gc/collect.go",
		"return action{remove: metav1.DeletePropagationBackground, reason: \"no owner exists\"}", "return action{reason: \"no owner exists\"}"},
	{"a job counts a pod before it lets it go", "", "control/controller/job/account.go",
		"if stillTracked[uid] {", "if stillTracked[uid] && false {"},
	{"a quota is not looked at", "", "control/apiserver/admit/quota_charge.go",
		"if len(over) == 0 {", "if len(over) >= 0 {"},
	{"of two leaders both take off what has gone", "two leaders", "control/controller/resourcequota/marks.go",
		"ok && err == nil && n > 0 {", "ok && err == nil && n > 0 && false {"},
	{"of two leaders both count a pod of a job", "two leaders", "control/controller/job/confirm.go",
		"if err != nil || c.pods.Revision() >= revision {", "if err != nil || revision > 0 {"},
	{"an update overwrites what its writer has not seen", "two leaders", "control/apiserver/resource/meta.go",
		"	return apierrors.NewConflict(c.gr(), old.GetName(), errors.New(modified))\n",
		"	if c.kind != nil {\n\t\treturn nil\n\t}\n\treturn apierrors.NewConflict(c.gr(), old.GetName(), errors.New(modified))\n"},
	{"an eviction costs a budget nothing", "", "control/apiserver/resource/eviction.go",
		"b.Status.DisruptionsAllowed--", "b.Status.DisruptionsAllowed += 0"},
	{"a budget counts pods that are going", "calm", "control/controller/disruption/plan.go",
		"if pod.DeletionTimestamp != nil {", "if pod.DeletionTimestamp != nil && now.IsZero() {"},
	{"a pod that is evicted is gone before it has stopped", "bad nodes", "control/controller/taint/taint.go",
		"metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})",
		"metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &pod.UID}})"},
	{"an owner is known by its name alone", "slow news", "control/controller/claim.go",
		"if live.GetUID() != c.Owner.GetUID() {", "if live.GetName() != c.Owner.GetName() {"},
	{"an autoscaler forgets its bounds", "", "control/controller/horizontalpodautoscaler/normalize.go",
		"case q.desired > most:\n\t\treturn most, reason", "case q.desired > most:\n\t\treturn q.desired, reason"},
	{"a cron job forgets what runs", "", "control/controller/cronjob/plan.go",
		"batchv1.ForbidConcurrent && len(p.status.Active) > 0:", "batchv1.ForbidConcurrent && len(p.status.Active) > 9:"},
	{"nobody makes room for the important", "", "control/scheduler/preempt.go",
		"if priority(p.Pod) < priority(pod) {", "if priority(p.Pod) > priority(pod) {"},
	{"a watch begins an event too late", "", "control/apiserver/cache/window.go",
		"return c.window[i].revision > rev })", "return c.window[i].revision > rev+1 })"},
	{"the store takes any write", "", "control/store/memory/memory.go",
		"	if old.Revision != expected {", "	if old.Revision < expected {"},
	{"a range is given to two nodes", "", "control/controller/nodeipam/nodeipam.go",
		"taken = append(taken, had...)", "_ = had"},
	{"a volume in use goes", "", "control/controller/pvprotection/pvprotection.go",
		"has && v.Status.Phase != corev1.VolumeBound:", "has:"},
	{"a claim in use goes", "", "control/controller/pvcprotection/pvcprotection.go",
		"if err != nil || used {", "if err != nil {"},
	{"a volume is attached to two nodes", "", "control/controller/attachdetach/plan.go",
		"len(w.elsewhere) > 0 && !shared(w.volume):", "len(w.elsewhere) > 9 && !shared(w.volume):"},
	{"what nobody mounts stays attached", "", "control/controller/attachdetach/plan.go",
		"p.detach = append(p.detach, a.VolumeAttachment)", "_ = a"},
	{"who was not approved gets a certificate", "", "control/controller/csrsigning/signing.go",
		"!approved(have) ||", ""},
	{"a certificate that has run out stays", "", "control/controller/csrcleaning/cleaning.go",
		"if c.Type == certificatesv1.CertificateApproved && issued {", "if c.Type == certificatesv1.CertificateDenied && issued {"},
	{"a token signs for ever", "", "control/controller/bootstraptoken/sign.go",
		"return strings.HasPrefix(key, signaturePrefix) })", "return strings.HasPrefix(key, signaturePrefix) && key == \"\" })"},
	{"a token goes over to another account of the name", "", "control/controller/tokensecret/tokensecret.go",
		"return uid == \"\" || a.UID == uid }", "return uid == \"\" || a.Name == name }"},
	{"migrations of one kind run at once", "", "control/controller/storageversionmigrator/storageversionmigrator.go",
		"case !running && c.next(m.Spec.Resource) != have:", "case !running && c.next(m.Spec.Resource) == nil:"},
	{"a token that nobody uses lasts for ever", "", "control/controller/legacytoken/plan.go",
		"case since < before.Format(time.DateOnly):", "case since < before.AddDate(-1, 0, 0).Format(time.DateOnly):"},
	{"a status does not go down", "", "control/controller/replicaset/status.go",
		"int32(len(active)),\n\t\tTerm", "max(rs.Status.Replicas, int32(len(active))),\n\t\tTerm"},
	{"a component writes into what all are shown", "", "client/informer/informer.go",
		"if i.opts.Strip == nil {", "if i.opts.Strip == nil {\n\t\tobj.SetManagedFields(nil)"},
}

// allMutations tries every mutation; without it, make test tries the first few: each
// is a build of the whole control plane.
var allMutations = flag.Bool("mutations", false, "try all mutations")

// fewMutations is how many are tried without -mutations.
const fewMutations = 3

// seedsOfMutation is how many seeds a mutation gets to be noticed in.
const seedsOfMutation = "132"

// TestMutations builds this test with each fault in turn, and wants it to fail.
func TestMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("each mutation is a build of the whole control plane")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	tried := mutations
	if !*allMutations {
		tried = mutations[:fewMutations]
	}
	for _, m := range tried {
		t.Run(m.name, func(t *testing.T) { m.try(t, root) })
	}
}

// longestBuild bounds a build, which takes half a minute, and longestTrial the lives of
// a mutation.
const (
	longestBuild = 4 * time.Minute
	longestTrial = 6 * time.Minute
)

// bounded runs a program to its end and returns what it printed. One that takes too
// long is asked where it stands: Go's programs answer SIGQUIT with their stacks.
func bounded(t *testing.T, longest time.Duration, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return out, err
}

func (m mutation) try(t *testing.T, root string) {
	dir := t.TempDir()
	lives, err := os.MkdirTemp(room(), "sampan-seeds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(lives); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(roomEnv, lives)
	file := filepath.Join(root, m.file)
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s holds the text to break %d times, want once: %s", m.file, n, m.old)
	}
	broken := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(broken, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: broken}})
	if err != nil {
		t.Fatal(err)
	}
	plan, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "seeded.test")
	if err := os.WriteFile(plan, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := []string{"test", "-c", "-overlay", plan, "-o", program, "."}
	out, err := bounded(t, longestBuild, "go", build...)
	if errors.Is(err, context.DeadlineExceeded) { // a build is not what is tried here
		t.Logf("the build came to a stop, and is begun again:\n%s", out)
		out, err = bounded(t, longestBuild, "go", build...)
	}
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err = bounded(t, longestTrial, program, "-test.run", "^TestSeeds$", "-test.failfast", "-test.v", "-seeds", seedsOfMutation, "-first", "-profile", m.profile)
	noticed := noticedBy.FindSubmatch(out)
	if err == nil || noticed == nil {
		t.Fatalf("no seed has noticed: %v\n%s", err, out)
	}
	t.Logf("seed %s (%s) has noticed, after %d lives", noticed[1], noticed[2], livesIn(out))
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "WRONG") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// noticedBy is how a seed that fails is told.
var noticedBy = regexp.MustCompile(`seed (\d+) \(([a-z ]+)\):\n`)

// livesIn sums up how many lives the processes of a trial have lived.
func livesIn(out []byte) int {
	sum := 0
	for line := range strings.Lines(string(out)) {
		n := 0
		if _, err := fmt.Sscanf(strings.TrimSpace(line), livedLine, &n); err == nil {
			sum += n
		}
	}
	return sum
}
