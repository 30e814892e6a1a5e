package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/sampan-dev/sampan/client"
)

// Row is a kind whose objects ask for a number of pods. ReplicaSet and the older
// ReplicationController differ in nothing else.
type Row[T client.Object] struct {
	// Name is the controller's: "replicaset".
	Name string
	// Component is its user and the source of its events, as upstream's.
	Component string
	Resource  client.Resource[T]
	// View shows an object as a ReplicaSet with the same metadata. It may share
	// what the object has; nobody changes it.
	View func(T) *appsv1.ReplicaSet
	// WithStatus returns a copy of the object that has the status.
	WithStatus func(T, appsv1.ReplicaSetStatus) T
	// Terminating: the status has a count of pods on their way out.
	Terminating bool
}

// ReplicaSets is the row of the kind that the package is named after.
func ReplicaSets() Row[*appsv1.ReplicaSet] {
	return Row[*appsv1.ReplicaSet]{
		Name:      "replicaset",
		Component: "replicaset-controller",
		Resource:  client.ReplicaSets,
		View:      func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs },
		WithStatus: func(rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
			next := rs.DeepCopy()
			next.Status = status
			return next
		},
		Terminating: true,
	}
}
