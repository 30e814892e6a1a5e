package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateDeployment(_ *appsv1.Deployment) field.ErrorList                          { return nil }
func validateDeploymentUpdate(_, _ *appsv1.Deployment) field.ErrorList                 { return nil }
func validateDeploymentStatusUpdate(_, _ *appsv1.Deployment) field.ErrorList           { return nil }
func validateReplicaSet(_ *appsv1.ReplicaSet) field.ErrorList                          { return nil }
func validateReplicaSetUpdate(_, _ *appsv1.ReplicaSet) field.ErrorList                 { return nil }
func validateReplicaSetStatusUpdate(_, _ *appsv1.ReplicaSet) field.ErrorList           { return nil }
func validateDaemonSet(_ *appsv1.DaemonSet) field.ErrorList                            { return nil }
func validateDaemonSetUpdate(_, _ *appsv1.DaemonSet) field.ErrorList                   { return nil }
func validateDaemonSetStatusUpdate(_, _ *appsv1.DaemonSet) field.ErrorList             { return nil }
func validateStatefulSet(_ *appsv1.StatefulSet) field.ErrorList                        { return nil }
func validateStatefulSetUpdate(_, _ *appsv1.StatefulSet) field.ErrorList               { return nil }
func validateStatefulSetStatusUpdate(_, _ *appsv1.StatefulSet) field.ErrorList         { return nil }
func validateControllerRevision(_ *appsv1.ControllerRevision) field.ErrorList          { return nil }
func validateControllerRevisionUpdate(_, _ *appsv1.ControllerRevision) field.ErrorList { return nil }
