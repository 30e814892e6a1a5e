package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
)

// Annotations of replica sets (and revision of deployments) that kubectl
// rollout reads: upstream's pkg/controller/deployment/util.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maximumAnnotation  = "deployment.kubernetes.io/max-replicas"

	hashLabel = appsv1.DefaultDeploymentUniqueLabelKey
	// maxHistory bounds the history annotation: about a hundred revisions.
	maxHistory = 2000
)

// notCopied are the deployment's annotations that its sets do not get.
var notCopied = []string{
	corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation,
	desiredAnnotation, maximumAnnotation, appsv1.DeprecatedRollbackTo,
}

// ensureFresh makes sure that there is a set of the present template, the one
// with the greatest revision.
func (r *round) ensureFresh() {
	if r.fresh != nil {
		r.adoptRevision()
		return
	}
	hash := templateHash(&r.d.Spec.Template, r.d.Status.CollisionCount)
	template := r.d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, hashLabel, hash)
	selector := r.d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, hashLabel, hash)
	r.fresh = &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       r.d.Namespace,
			Name:            setName(r.d.Name, hash),
			Labels:          maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{client.Deployments.Owner(r.d)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        new(int32),
			MinReadySeconds: r.d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        *template,
		},
	}
	r.created = true
	*r.fresh.Spec.Replicas = r.roomForFresh()
	r.reasons[r.fresh] = "the template has no set yet"
	r.annotate(r.fresh, r.nextRevision())
	r.setSizes(r.fresh)
	r.plan.revision = r.fresh.Annotations[revisionAnnotation]
	if hasDeadline(r.d) {
		r.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated",
			fmt.Sprintf("Created new replica set %q", r.fresh.Name))
	}
}

// adoptRevision brings the annotations of the present template's set up to date,
// if there is one, and the deployment's revision with them.
func (r *round) adoptRevision() {
	if r.fresh == nil {
		return
	}
	if r.annotate(r.fresh, r.nextRevision()) {
		r.touch(r.fresh, "its annotations follow the deployment's")
	}
	if r.fresh.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		r.fresh.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		r.touch(r.fresh, "minReadySeconds follows the deployment's")
	}
	if revision := r.fresh.Annotations[revisionAnnotation]; revision != r.d.Annotations[revisionAnnotation] {
		r.plan.revision = revision
	}
	if hasDeadline(r.d) && conditionOf(&r.d.Status, appsv1.DeploymentProgressing) == nil {
		r.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Found new replica set %q", r.fresh.Name))
	}
}

func (r *round) touch(rs *appsv1.ReplicaSet, reason string) {
	if r.reasons[rs] == "" {
		r.reasons[rs] = reason
	}
}

func (r *round) nextRevision() int64 {
	var greatest int64
	for _, rs := range r.sets {
		greatest = max(greatest, revisionOf(rs))
	}
	return greatest + 1
}

// annotate copies the deployment's annotations to rs and raises its revision. A
// set that already had one has been rolled back to: its history remembers.
func (r *round) annotate(rs *appsv1.ReplicaSet, revision int64) (changed bool) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range r.d.Annotations {
		if have, ok := rs.Annotations[k]; !slices.Contains(notCopied, k) && (!ok || have != v) {
			rs.Annotations[k] = v
			changed = true
		}
	}
	old, had := rs.Annotations[revisionAnnotation]
	oldNumber, err := strconv.ParseInt(old, 10, 64)
	if had && old != "" && err != nil || oldNumber >= revision {
		return changed // somebody's own number, or the greatest already
	}
	rs.Annotations[revisionAnnotation] = strconv.FormatInt(revision, 10)
	if had {
		rs.Annotations[historyAnnotation] = remember(rs.Annotations[historyAnnotation], old)
	}
	return true
}

// remember appends a revision to a comma-separated history and forgets the
// oldest when it grows too long.
func remember(history, revision string) string {
	if history == "" {
		return revision
	}
	history += "," + revision
	for len(history) > maxHistory {
		_, rest, found := strings.Cut(history, ",")
		if !found {
			break
		}
		history = rest
	}
	return history
}

// setSizes notes what the deployment wants, so that a change of its size can be
// told from the course of a rollout.
func (r *round) setSizes(rs *appsv1.ReplicaSet) (changed bool) {
	surge, _ := fenceposts(r.d)
	want := *r.d.Spec.Replicas
	for k, n := range map[string]int32{desiredAnnotation: want, maximumAnnotation: want + surge} {
		if v := strconv.Itoa(int(n)); rs.Annotations[k] != v {
			rs.Annotations = with(rs.Annotations, k, v)
			changed = true
		}
	}
	return changed
}

// sameTemplate compares two templates without the label that the controller
// itself puts on.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	bare := *t
	if _, ok := t.Labels[hashLabel]; ok {
		bare.Labels = maps.Clone(t.Labels)
		delete(bare.Labels, hashLabel)
	}
	return &bare
}

// templateHash names a template. It is taken over its JSON, which leaves out
// what is unset: fields that later versions of the API add do not change it.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	if err := json.NewEncoder(h).Encode(withoutHash(t)); err != nil {
		panic(fmt.Sprintf("deployment: encode pod template: %v", err)) // decoded from the same types
	}
	if collisions != nil {
		fmt.Fprint(h, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

func setName(deployment, hash string) string {
	longest := validation.DNS1123SubdomainMaxLength - len("-") - len(hash)
	return deployment[:min(len(deployment), longest)] + "-" + hash
}

// revisionOf is 0 for a set without a valid one.
func revisionOf(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func with(m map[string]string, k, v string) map[string]string {
	next := maps.Clone(m)
	if next == nil {
		next = map[string]string{}
	}
	next[k] = v
	return next
}
