package deployment

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// Reasons of the events about a rollback: upstream's.
const (
	rolledBack       = "DeploymentRollback"
	noSuchRevision   = "DeploymentRollbackRevisionNotFound"
	sameAsBefore     = "DeploymentRollbackTemplateUnchanged"
	noLastRevision   = "Unable to find last revision."
	noWantedRevision = "Unable to find the revision to rollback to."
)

// rollback is what becomes of a rollback that an annotation asks for: what
// `kubectl rollout undo` of old and the extensions/v1beta1 API did.
type rollback struct {
	to              *appsv1.ReplicaSet // nil: the deployment stays as it is
	reason, message string             // of the event
}

// rollbackTo is the rollout revision that is asked for, 0 for the one before the
// present; false when none is, or nonsense.
func rollbackTo(d *appsv1.Deployment) (int64, bool) {
	revision, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedRollbackTo], 10, 64)
	return revision, err == nil
}

// rollBack decides on the rollback that is asked for; false when none is.
func (r *round) rollBack() bool {
	revision, asked := rollbackTo(r.d)
	if !asked {
		return false
	}
	r.notePause()
	r.ensureFresh()
	back := &rollback{reason: noSuchRevision, message: noWantedRevision}
	r.plan.back = back
	if revision == 0 {
		if revision = r.lastRevision(); revision == 0 {
			back.message = noLastRevision
			return true
		}
	}
	at := slices.IndexFunc(r.all(), func(rs *appsv1.ReplicaSet) bool { return revisionOf(rs) == revision })
	if at < 0 {
		return true
	}
	rs := r.all()[at]
	if sameTemplate(&rs.Spec.Template, &r.d.Spec.Template) {
		back.reason = sameAsBefore
		back.message = fmt.Sprintf("The rollback revision contains the same template as current deployment %q", r.d.Name)
		return true
	}
	back.to, back.reason = rs, rolledBack
	back.message = fmt.Sprintf("Rolled back deployment %q to revision %d", r.d.Name, revision)
	return true
}

// lastRevision is the second greatest of all sets, 0 when there is none.
func (r *round) lastRevision() int64 {
	var greatest, second int64
	for _, rs := range r.all() {
		switch n := revisionOf(rs); {
		case n >= greatest:
			greatest, second = n, greatest
		case n > second:
			second = n
		}
	}
	return second
}

// apply is d after the rollback, which is no longer asked for. With the template come
// the annotations of that time, such as the cause of the change.
func (b *rollback) apply(d *appsv1.Deployment) *appsv1.Deployment {
	next := d.DeepCopy()
	delete(next.Annotations, appsv1.DeprecatedRollbackTo)
	if b.to == nil {
		return next
	}
	next.Spec.Template = *withoutHash(b.to.Spec.Template.DeepCopy())
	maps.DeleteFunc(next.Annotations, func(k, _ string) bool { return !slices.Contains(notCopied, k) })
	for k, v := range b.to.Annotations {
		if !slices.Contains(notCopied, k) {
			next.Annotations[k] = v
		}
	}
	return next
}
