package all

import (
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kinds"
)

const podTemplate = `template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}`
const workload = `spec: {selector: {matchLabels: {a: b}}, ` + podTemplate + `}`
const jobSpec = `template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}`

// minimal is the least that a user writes for each kind.
var minimal = map[string]string{
	"v1/Binding":               `target: {kind: Node, name: n1}`,
	"v1/ConfigMap":             `data: {a: b}`,
	"v1/Endpoints":             `subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]`,
	"v1/ComponentStatus":       `conditions: [{type: Healthy, status: "True"}]`,
	"v1/Event":                 `involvedObject: {kind: Pod, name: p, namespace: default}`,
	"v1/LimitRange":            `spec: {limits: [{type: Container, max: {cpu: "1"}}]}`,
	"v1/Namespace":             ``,
	"v1/Node":                  ``,
	"v1/PersistentVolume":      `spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /data}}`,
	"v1/PersistentVolumeClaim": `spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}`,
	"v1/Pod":                   `spec: {containers: [{name: c, image: i}]}`,
	"v1/PodTemplate":           podTemplate,
	"v1/ReplicationController": `spec: {` + podTemplate + `}`,
	"v1/ResourceQuota":         `spec: {hard: {pods: "3", requests.cpu: "1", hugepages-2Mi: 4Mi}}`,
	"v1/Secret":                `stringData: {a: b}`,
	"v1/Service":               `spec: {ports: [{port: 80}]}`,
	"v1/ServiceAccount":        ``,

	"apps/v1/ControllerRevision": `{revision: 1, data: {a: b}}`,
	"apps/v1/DaemonSet":          workload,
	"apps/v1/Deployment":         workload,
	"apps/v1/ReplicaSet":         workload,
	"apps/v1/StatefulSet":        workload,

	"autoscaling/v1/HorizontalPodAutoscaler": `spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}`,
	"autoscaling/v2/HorizontalPodAutoscaler": `spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}`,

	"batch/v1/Job":     `spec: {` + jobSpec + `}`,
	"batch/v1/CronJob": `spec: {schedule: "*/5 * * * *", timeZone: Etc/UTC, jobTemplate: {spec: {` + jobSpec + `}}}`,

	"events.k8s.io/v1/Event": `{eventTime: "2026-01-01T00:00:00.000000Z", type: Normal, reason: R, action: A,
  reportingController: example.com/c, reportingInstance: i, regarding: {kind: Pod, name: p, namespace: default}}`,
	"authentication.k8s.io/v1/SelfSubjectReview":       ``,
	"authentication.k8s.io/v1/TokenReview":             `spec: {token: t}`,
	"authorization.k8s.io/v1/LocalSubjectAccessReview": `spec: {user: u, resourceAttributes: {namespace: default, verb: get, resource: pods}}`,
	"authorization.k8s.io/v1/SelfSubjectAccessReview":  `spec: {nonResourceAttributes: {path: /x, verb: get}}`,
	"authorization.k8s.io/v1/SelfSubjectRulesReview":   `spec: {namespace: default}`,
	"authorization.k8s.io/v1/SubjectAccessReview":      `spec: {user: u, resourceAttributes: {verb: get, resource: pods}}`,
	"coordination.k8s.io/v1/Lease":                     `spec: {holderIdentity: me, leaseDurationSeconds: 15}`,
	"discovery.k8s.io/v1/EndpointSlice":                `{addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}`,
	"flowcontrol.apiserver.k8s.io/v1/FlowSchema": `spec: {priorityLevelConfiguration: {name: x}, rules: [{subjects: [{kind: User, user: {name: u}}],
  nonResourceRules: [{verbs: [get], nonResourceURLs: [/x/*]}]}]}`,
	"flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration": `spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}`,
	"storagemigration.k8s.io/v1/StorageVersionMigration":         `spec: {resource: {resource: secrets}}`,
	"networking.k8s.io/v1/Ingress":                               `spec: {rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}`,
	"networking.k8s.io/v1/IngressClass":                          `spec: {controller: example.com/c}`,
	"networking.k8s.io/v1/NetworkPolicy":                         `spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80}]}]}`,
	"node.k8s.io/v1/RuntimeClass":                                `handler: h`,
	"policy/v1/PodDisruptionBudget":                              `spec: {minAvailable: 50%, selector: {matchLabels: {a: b}}}`,
	"rbac.authorization.k8s.io/v1/ClusterRole":                   `rules: [{nonResourceURLs: [/x], verbs: [get]}]`,
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding":            `{roleRef: {kind: ClusterRole, name: "a:b"}, subjects: [{kind: User, name: u}]}`,
	"rbac.authorization.k8s.io/v1/Role":                          `rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]`,
	"rbac.authorization.k8s.io/v1/RoleBinding":                   `{roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: s}]}`,
	"scheduling.k8s.io/v1/PriorityClass":                         `value: 1000`,
	"storage.k8s.io/v1/StorageClass":                             `provisioner: example.com/p`,
	"storage.k8s.io/v1/CSIDriver":                                ``,
	"storage.k8s.io/v1/CSINode":                                  `spec: {drivers: [{name: example.com, nodeID: n}]}`,
	"storage.k8s.io/v1/CSIStorageCapacity":                       `storageClassName: fast`,
	"storage.k8s.io/v1/VolumeAttachment":                         `spec: {attacher: example.com, nodeName: n, source: {persistentVolumeName: v}}`,
	"resource.k8s.io/v1/DeviceClass":                             ``,
	"resource.k8s.io/v1/DeviceTaintRule":                         `spec: {taint: {key: example.com/broken, effect: NoSchedule}}`,
	"resource.k8s.io/v1/ResourceClaim":                           `spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}`,
	"resource.k8s.io/v1/ResourceClaimTemplate":                   `spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}`,
	"resource.k8s.io/v1/ResourceSlice":                           `spec: {driver: example.com, nodeName: n, pool: {name: p, resourceSliceCount: 1}}`,
	"storage.k8s.io/v1/VolumeAttributesClass":                    `{driverName: example.com, parameters: {iops: "1"}}`,
	"apiregistration.k8s.io/v1/APIService": `{metadata: {name: v1.example.com}, spec: {group: example.com, version: v1, groupPriorityMinimum: 100,
  versionPriority: 10, service: {namespace: default, name: s}}}`,
	"certificates.k8s.io/v1/CertificateSigningRequest": `spec: {signerName: example.com/s, usages: [client auth], request: ` + signingRequest + `}`,
	"certificates.k8s.io/v1/ClusterTrustBundle":        "spec:\n  trustBundle: |\n" + trustAnchor,
	"certificates.k8s.io/v1/PodCertificateRequest": `spec: {signerName: example.com/s, podName: p, podUID: u1, serviceAccountName: a, serviceAccountUID: u2,
  nodeName: n, nodeUID: u3, stubPKCS10Request: ` + stubRequest + `}`,
	"apiextensions.k8s.io/v1/CustomResourceDefinition": `{metadata: {name: boats.example.com}, spec: {group: example.com, scope: Namespaced,
  names: {plural: boats, kind: Boat}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}`,
	"admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration": `webhooks: [{name: a.example.com, clientConfig: {url: "https://h/p"},
  sideEffects: None, admissionReviewVersions: [v1], rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}]`,
	"admissionregistration.k8s.io/v1/MutatingWebhookConfiguration": `webhooks: [{name: a.example.com, clientConfig: {service: {namespace: n, name: s}},
  sideEffects: NoneOnDryRun, admissionReviewVersions: [v1, v1beta1]}]`,
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy": `spec: {matchConstraints: {resourceRules: [{operations: ["*"], apiGroups: [apps],
  apiVersions: ["*"], resources: [deployments]}]}, validations: [{expression: object.spec.replicas < 3}]}`,
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding": `spec: {policyName: p, validationActions: [Deny, Audit],
  paramRef: {name: c, parameterNotFoundAction: Deny}}`,
	"admissionregistration.k8s.io/v1/MutatingAdmissionPolicy": `spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules: [{operations: [CREATE],
  apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}, mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[]"}}]}`,
	"admissionregistration.k8s.io/v1/MutatingAdmissionPolicyBinding": `spec: {policyName: p}`,

	"networking.k8s.io/v1/IPAddress":   `spec: {parentRef: {resource: services, namespace: default, name: s}}`,
	"networking.k8s.io/v1/ServiceCIDR": `spec: {cidrs: [10.0.0.0/24]}`,
}

// What a user of upstream may write must be good here, and written again, too.
func TestMinimalObjectsAreValid(t *testing.T) {
	for _, kind := range Kinds() {
		name := kind.GVK.GroupVersion().String() + "/" + kind.GVK.Kind
		t.Run(name, func(t *testing.T) {
			text, ok := minimal[name]
			if !ok {
				t.Fatal("there is no minimal object for this kind")
			}
			obj := kind.New()
			if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
				t.Fatal(err)
			}
			review := kind.Storage == "" && kind.GVK.Group == "authorization.k8s.io"
			if kind.Namespaced {
				obj.SetNamespace("default")
			}
			if !review {
				if obj.GetName() == "" {
					obj.SetName("x")
				}
				obj.SetUID("00000000-0000-0000-0000-000000000001")
			}
			create(kind, obj)
			if kind.Strategy.Validate != nil {
				for _, err := range kind.Strategy.Validate(obj) {
					t.Errorf("create: %v", err)
				}
			}
			update(t, kind, obj)
		})
	}
}

// create does what the handler does before it validates.
func create(kind *kinds.Kind, obj kinds.Object) {
	s := kind.Strategy
	for _, change := range []func(kinds.Object){s.Default, s.PrepareCreate, s.Default} {
		if change != nil {
			change(obj)
		}
	}
}

// update writes an object back unchanged: that is no change.
func update(t *testing.T, kind *kinds.Kind, old kinds.Object) {
	s := kind.Strategy
	obj := old.DeepCopyObject().(kinds.Object)
	if s.Default != nil {
		s.Default(obj)
	}
	if s.PrepareUpdate != nil {
		s.PrepareUpdate(obj, old)
	}
	if s.ValidateUpdate != nil {
		for _, err := range s.ValidateUpdate(obj, old) {
			t.Errorf("update: %v", err)
		}
	}
	if obj.GetGeneration() != old.GetGeneration() {
		t.Errorf("generation went from %d to %d without a change", old.GetGeneration(), obj.GetGeneration())
	}
	if s.Generation && old.GetGeneration() != 1 {
		t.Errorf("first generation is %d", old.GetGeneration())
	}
	for _, sub := range kind.Subresources {
		if sub.Copy == nil {
			continue
		}
		body := obj.DeepCopyObject()
		if sub.Show != nil {
			body = sub.Show(obj)
		}
		next := old.DeepCopyObject().(kinds.Object)
		if err := sub.Copy(next, body); err != nil {
			t.Errorf("%s: %v", sub.Name, err)
		}
		if sub.ValidateUpdate != nil {
			for _, err := range sub.ValidateUpdate(next, old) {
				t.Errorf("%s: %v", sub.Name, err)
			}
		}
		if !kinds.Same(next, old) {
			t.Errorf("%s: an unchanged body changed the object", sub.Name)
		}
	}
}
