package client

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The known kinds, core group.
var (
	Pods                   = namespaced[*corev1.Pod](corev1.SchemeGroupVersion, "pods", "Pod")
	Services               = namespaced[*corev1.Service](corev1.SchemeGroupVersion, "services", "Service")
	Endpoints              = namespaced[*corev1.Endpoints](corev1.SchemeGroupVersion, "endpoints", "Endpoints")
	ConfigMaps             = namespaced[*corev1.ConfigMap](corev1.SchemeGroupVersion, "configmaps", "ConfigMap")
	Secrets                = namespaced[*corev1.Secret](corev1.SchemeGroupVersion, "secrets", "Secret")
	ServiceAccounts        = namespaced[*corev1.ServiceAccount](corev1.SchemeGroupVersion, "serviceaccounts", "ServiceAccount")
	Events                 = namespaced[*corev1.Event](corev1.SchemeGroupVersion, "events", "Event")
	LimitRanges            = namespaced[*corev1.LimitRange](corev1.SchemeGroupVersion, "limitranges", "LimitRange")
	ResourceQuotas         = namespaced[*corev1.ResourceQuota](corev1.SchemeGroupVersion, "resourcequotas", "ResourceQuota")
	ReplicationControllers = namespaced[*corev1.ReplicationController](corev1.SchemeGroupVersion, "replicationcontrollers", "ReplicationController")
	PersistentVolumeClaims = namespaced[*corev1.PersistentVolumeClaim](corev1.SchemeGroupVersion, "persistentvolumeclaims", "PersistentVolumeClaim")
	Namespaces             = clusterwide[*corev1.Namespace](corev1.SchemeGroupVersion, "namespaces", "Namespace")
	Nodes                  = clusterwide[*corev1.Node](corev1.SchemeGroupVersion, "nodes", "Node")
	PersistentVolumes      = clusterwide[*corev1.PersistentVolume](corev1.SchemeGroupVersion, "persistentvolumes", "PersistentVolume")
)

// StorageVersionMigrations ask for objects to be written again.
var StorageVersionMigrations = clusterwide[*storagemigrationv1.StorageVersionMigration](storagemigrationv1.SchemeGroupVersion, "storageversionmigrations", "StorageVersionMigration")

// The known kinds, workloads.
var (
	Deployments              = namespaced[*appsv1.Deployment](appsv1.SchemeGroupVersion, "deployments", "Deployment")
	ReplicaSets              = namespaced[*appsv1.ReplicaSet](appsv1.SchemeGroupVersion, "replicasets", "ReplicaSet")
	DaemonSets               = namespaced[*appsv1.DaemonSet](appsv1.SchemeGroupVersion, "daemonsets", "DaemonSet")
	StatefulSets             = namespaced[*appsv1.StatefulSet](appsv1.SchemeGroupVersion, "statefulsets", "StatefulSet")
	ControllerRevisions      = namespaced[*appsv1.ControllerRevision](appsv1.SchemeGroupVersion, "controllerrevisions", "ControllerRevision")
	Jobs                     = namespaced[*batchv1.Job](batchv1.SchemeGroupVersion, "jobs", "Job")
	CronJobs                 = namespaced[*batchv1.CronJob](batchv1.SchemeGroupVersion, "cronjobs", "CronJob")
	HorizontalPodAutoscalers = namespaced[*autoscalingv2.HorizontalPodAutoscaler](autoscalingv2.SchemeGroupVersion, "horizontalpodautoscalers", "HorizontalPodAutoscaler")
	PodDisruptionBudgets     = namespaced[*policyv1.PodDisruptionBudget](policyv1.SchemeGroupVersion, "poddisruptionbudgets", "PodDisruptionBudget")
)

// The known kinds, network, nodes and scheduling.
var (
	EndpointSlices  = namespaced[*discoveryv1.EndpointSlice](discoveryv1.SchemeGroupVersion, "endpointslices", "EndpointSlice")
	Ingresses       = namespaced[*networkingv1.Ingress](networkingv1.SchemeGroupVersion, "ingresses", "Ingress")
	NetworkPolicies = namespaced[*networkingv1.NetworkPolicy](networkingv1.SchemeGroupVersion, "networkpolicies", "NetworkPolicy")
	IngressClasses  = clusterwide[*networkingv1.IngressClass](networkingv1.SchemeGroupVersion, "ingressclasses", "IngressClass")
	ServiceCIDRs    = clusterwide[*networkingv1.ServiceCIDR](networkingv1.SchemeGroupVersion, "servicecidrs", "ServiceCIDR")
	IPAddresses     = clusterwide[*networkingv1.IPAddress](networkingv1.SchemeGroupVersion, "ipaddresses", "IPAddress")
	Leases          = namespaced[*coordinationv1.Lease](coordinationv1.SchemeGroupVersion, "leases", "Lease")
	PriorityClasses = clusterwide[*schedulingv1.PriorityClass](schedulingv1.SchemeGroupVersion, "priorityclasses", "PriorityClass")
	RuntimeClasses  = clusterwide[*nodev1.RuntimeClass](nodev1.SchemeGroupVersion, "runtimeclasses", "RuntimeClass")
)

// The known kinds, storage and devices.
var (
	StorageClasses         = clusterwide[*storagev1.StorageClass](storagev1.SchemeGroupVersion, "storageclasses", "StorageClass")
	VolumeAttachments      = clusterwide[*storagev1.VolumeAttachment](storagev1.SchemeGroupVersion, "volumeattachments", "VolumeAttachment")
	CSIDrivers             = clusterwide[*storagev1.CSIDriver](storagev1.SchemeGroupVersion, "csidrivers", "CSIDriver")
	CSINodes               = clusterwide[*storagev1.CSINode](storagev1.SchemeGroupVersion, "csinodes", "CSINode")
	CSIStorageCapacities   = namespaced[*storagev1.CSIStorageCapacity](storagev1.SchemeGroupVersion, "csistoragecapacities", "CSIStorageCapacity")
	DeviceClasses          = clusterwide[*resourcev1.DeviceClass](resourcev1.SchemeGroupVersion, "deviceclasses", "DeviceClass")
	ResourceSlices         = clusterwide[*resourcev1.ResourceSlice](resourcev1.SchemeGroupVersion, "resourceslices", "ResourceSlice")
	DeviceTaintRules       = clusterwide[*resourcev1.DeviceTaintRule](resourcev1.SchemeGroupVersion, "devicetaintrules", "DeviceTaintRule")
	ResourceClaims         = namespaced[*resourcev1.ResourceClaim](resourcev1.SchemeGroupVersion, "resourceclaims", "ResourceClaim")
	PodGroups              = namespaced[*schedulingv1beta1.PodGroup](schedulingv1beta1.SchemeGroupVersion, "podgroups", "PodGroup")
	ResourceClaimTemplates = namespaced[*resourcev1.ResourceClaimTemplate](resourcev1.SchemeGroupVersion, "resourceclaimtemplates", "ResourceClaimTemplate")
)

// The known kinds, who may do what.
var (
	Roles                             = namespaced[*rbacv1.Role](rbacv1.SchemeGroupVersion, "roles", "Role")
	RoleBindings                      = namespaced[*rbacv1.RoleBinding](rbacv1.SchemeGroupVersion, "rolebindings", "RoleBinding")
	ClusterRoles                      = clusterwide[*rbacv1.ClusterRole](rbacv1.SchemeGroupVersion, "clusterroles", "ClusterRole")
	ClusterRoleBindings               = clusterwide[*rbacv1.ClusterRoleBinding](rbacv1.SchemeGroupVersion, "clusterrolebindings", "ClusterRoleBinding")
	CertificateSigningRequests        = clusterwide[*certificatesv1.CertificateSigningRequest](certificatesv1.SchemeGroupVersion, "certificatesigningrequests", "CertificateSigningRequest")
	PodCertificateRequests            = namespaced[*certificatesv1.PodCertificateRequest](certificatesv1.SchemeGroupVersion, "podcertificaterequests", "PodCertificateRequest")
	ClusterTrustBundles               = clusterwide[*certificatesv1.ClusterTrustBundle](certificatesv1.SchemeGroupVersion, "clustertrustbundles", "ClusterTrustBundle")
	MutatingWebhookConfigurations     = clusterwide[*admissionregistrationv1.MutatingWebhookConfiguration](admissionregistrationv1.SchemeGroupVersion, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration")
	ValidatingWebhookConfigurations   = clusterwide[*admissionregistrationv1.ValidatingWebhookConfiguration](admissionregistrationv1.SchemeGroupVersion, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration")
	ValidatingAdmissionPolicies       = clusterwide[*admissionregistrationv1.ValidatingAdmissionPolicy](admissionregistrationv1.SchemeGroupVersion, "validatingadmissionpolicies", "ValidatingAdmissionPolicy")
	ValidatingAdmissionPolicyBindings = clusterwide[*admissionregistrationv1.ValidatingAdmissionPolicyBinding](admissionregistrationv1.SchemeGroupVersion, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding")
)

// GVK is the kind with its group and version.
func (r Resource[T]) GVK() schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.Kind)
}

// Owner is the owner reference that makes obj the controller of what carries it.
// Deleting obj in the foreground waits for the dependent.
func (r Resource[T]) Owner(obj T) metav1.OwnerReference {
	return *metav1.NewControllerRef(obj, r.GVK())
}

func namespaced[T Object](gv schema.GroupVersion, resource, kind string) Resource[T] {
	return Resource[T]{gv.WithResource(resource), kind, true}
}

func clusterwide[T Object](gv schema.GroupVersion, resource, kind string) Resource[T] {
	return Resource[T]{gv.WithResource(resource), kind, false}
}
