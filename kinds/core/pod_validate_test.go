package core

import (
	"sort"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// parsePod reads a pod, defaults it and prepares it as the handler would.
func parsePod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatalf("parse pod: %v", err)
	}
	DefaultPod(p)
	preparePod(p)
	DefaultPod(p)
	return p
}

// lines are faults one a line, in a fixed order.
func lines(errs field.ErrorList) string {
	all := make([]string, 0, len(errs))
	for _, err := range errs {
		all = append(all, err.Error())
	}
	sort.Strings(all)
	return strings.Join(all, "\n")
}

type podCase struct{ name, pod, want string }

func runPodCases(t *testing.T, cases []podCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := lines(validatePodCreate(parsePod(t, c.pod)))
			if want := strings.TrimSpace(c.want); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestPodContainers(t *testing.T) {
	runPodCases(t, []podCase{
		{"minimal", `spec: {containers: [{name: a, image: i}]}`, ""},
		{"none", `spec: {}`, `spec.containers: Required value`},
		{"names", `spec: {containers: [{name: A, image: i}, {name: b, image: i}, {name: b, image: ""}]}`, `
spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
spec.containers[2].image: Required value
spec.containers[2].name: Duplicate value: "b"`},
		{"padded image", `spec: {containers: [{name: a, image: " i"}]}`,
			`spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace`},
		{"ports", `spec: {containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}, {containerPort: 70000, protocol: ICMP}]}]}`, `
spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"
spec.containers[0].ports[2].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
spec.containers[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`},
		{"pull policy", `spec: {containers: [{name: a, image: i, imagePullPolicy: Sometimes}]}`,
			`spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`},
		{"init probes", `spec: {containers: [{name: a, image: i}], initContainers: [{name: b, image: i, livenessProbe: {exec: {command: [x]}}}, {name: c, image: i, restartPolicy: Always, livenessProbe: {exec: {command: [x]}}}]}`,
			`spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always`},
		{"ephemeral on create", `spec: {containers: [{name: a, image: i}], ephemeralContainers: [{name: e, image: i, targetContainerName: z, ports: [{containerPort: 1}]}]}`, `
spec.ephemeralContainers: Forbidden: cannot be set on create
spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container
spec.ephemeralContainers[0].targetContainerName: Not found: "z"`},
		{"probe", `spec: {containers: [{name: a, image: i, livenessProbe: {successThreshold: 2, httpGet: {port: 0}}, readinessProbe: {terminationGracePeriodSeconds: 3, tcpSocket: {port: http}, exec: {command: [x]}}, startupProbe: {}}]}`, `
spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive
spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes
spec.containers[0].startupProbe: Required value: must specify a handler type`},
		{"sleep", `spec: {terminationGracePeriodSeconds: 5, containers: [{name: a, image: i, lifecycle: {preStop: {sleep: {seconds: 6}}}}]}`,
			`spec.containers[0].lifecycle.preStop.sleep: Invalid value: 6: must be non-negative and less than terminationGracePeriodSeconds (5)`},
		{"restart rules", `spec: {containers: [{name: a, image: i, restartPolicyRules: [{action: Explode}]}]}`, `
spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used
spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Explode": supported values: "Restart", "RestartAllContainers"
spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified`},
	})
}

func TestPodEnvironment(t *testing.T) {
	runPodCases(t, []podCase{
		{"good", `spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: i, env: [{name: A, value: x}, {name: B, valueFrom: {fieldRef: {fieldPath: "metadata.labels['x']"}}}, {name: C, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}]}]}`, ""},
		{"sources", `spec: {containers: [{name: a, image: i, env: [{name: "", value: x}, {name: A, valueFrom: {}}, {name: B, value: x, valueFrom: {configMapKeyRef: {name: m, key: k}}}, {name: C, valueFrom: {fieldRef: {fieldPath: status.phase}}}, {name: D, valueFrom: {fieldRef: {fieldPath: spec.nope}}}, {name: "E=", value: x}]}]}`, `
spec.containers[0].env[0].name: Required value
spec.containers[0].env[1].valueFrom: Invalid value: "": must specify one of: ` + "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`" + `
spec.containers[0].env[2].valueFrom: Invalid value: "": may not be specified when ` + "`value`" + ` is not empty
spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
spec.containers[0].env[4].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field label not supported: spec.nope
spec.containers[0].env[5].name: Invalid value: "E=": a valid environment variable name must consist only of printable ASCII characters other than '='`},
		{"from", `spec: {containers: [{name: a, image: i, envFrom: [{}, {secretRef: {name: ""}}]}]}`, `
spec.containers[0].envFrom: Invalid value: "": must specify one of: ` + "`configMapRef` or `secretRef`" + `
spec.containers[0].envFrom[1].secretRef.name: Required value`},
		{"divisor", `spec: {containers: [{name: a, image: i, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: "3"}}}]}]}`,
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.memory": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource`},
	})
}

func TestPodVolumes(t *testing.T) {
	runPodCases(t, []podCase{
		{"good", `spec: {serviceAccountName: s, volumes: [{name: a}, {name: b, hostPath: {path: /x}}, {name: c, projected: {sources: [{serviceAccountToken: {path: t}}, {configMap: {name: m, items: [{key: k, path: p}]}}]}}], containers: [{name: a, image: i, volumeMounts: [{name: a, mountPath: /a}, {name: c, mountPath: /c, subPath: d}]}]}`, ""},
		{"names", `spec: {volumes: [{name: a}, {name: a}, {name: "", emptyDir: {}}, {name: b, emptyDir: {}, hostPath: {path: /}}], containers: [{name: a, image: i}]}`, `
spec.volumes[1].name: Duplicate value: "a"
spec.volumes[2].name: Required value
spec.volumes[3].hostPath: Forbidden: may not specify more than 1 volume type`},
		{"sources", `spec: {volumes: [{name: a, secret: {secretName: ""}}, {name: b, configMap: {name: m, defaultMode: 1000, items: [{key: k, path: ../x}]}}, {name: c, hostPath: {path: /a/../b, type: Odd}}, {name: d, persistentVolumeClaim: {claimName: ""}}, {name: e, nfs: {server: s, path: rel}}], containers: [{name: a, image: i}]}`, `
spec.volumes[0].secret.secretName: Required value
spec.volumes[1].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive
spec.volumes[1].configMap.items[0].path: Invalid value: "../x": must not contain '..'
spec.volumes[2].hostPath.path: Invalid value: "/a/../b": must not contain '..'
spec.volumes[2].hostPath.type: Unsupported value: "Odd": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
spec.volumes[3].persistentVolumeClaim.claimName: Required value
spec.volumes[4].nfs.path: Invalid value: "rel": must be an absolute path`},
		{"projected", `spec: {volumes: [{name: a, projected: {sources: [{secret: {name: s, items: [{key: k, path: p}]}}, {configMap: {name: m, items: [{key: k, path: p}]}}, {serviceAccountToken: {path: t, expirationSeconds: 5}}]}}], containers: [{name: a, image: i}]}`, `
spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes
spec.volumes[0].projected.sources[2].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set
spec.volumes[0].projected: Invalid value: "m": conflicting duplicate paths`},
		{"mounts", `spec: {volumes: [{name: a}], containers: [{name: a, image: i, volumeMounts: [{name: a, mountPath: /a}, {name: z, mountPath: /a}, {name: a, mountPath: /b, mountPropagation: Bidirectional, recursiveReadOnly: Enabled}, {name: a, mountPath: /c, subPath: /abs, subPathExpr: x}]}]}`, `
spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers
spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified
spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true
spec.containers[0].volumeMounts.subPath: Invalid value: "/abs": must be a relative path
spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique
spec.containers[0].volumeMounts[1].name: Not found: "z"
spec.containers[0].volumeMounts[3].subPathExpr: Invalid value: "x": subPathExpr and subPath are mutually exclusive`},
		{"devices", `spec: {volumes: [{name: a}, {name: p, persistentVolumeClaim: {claimName: c}}], containers: [{name: a, image: i, volumeDevices: [{name: a, devicePath: /d}, {name: p, devicePath: /e/../f}]}]}`, `
spec.containers[0].volumeDevices[0].name: Invalid value: "a": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode
spec.containers[0].volumeDevices[1].devicePath: Invalid value: "/e/../f": can not contain backsteps ('..')`},
		{"ephemeral", `spec: {volumes: [{name: a, ephemeral: {volumeClaimTemplate: {metadata: {name: x}, spec: {}}}}], containers: [{name: a, image: i}]}`, `
spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set
spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required
spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value`},
	})
}

func TestPodResources(t *testing.T) {
	runPodCases(t, []podCase{
		{"good", `spec: {containers: [{name: a, image: i, resources: {limits: {cpu: "1", memory: 1Gi, example.com/gpu: 2, hugepages-2Mi: 4Mi}}}]}`, ""},
		{"request above limit", `spec: {containers: [{name: a, image: i, resources: {limits: {cpu: "1"}, requests: {cpu: "2"}}}]}`,
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`},
		{"names", `spec: {containers: [{name: a, image: i, resources: {limits: {cpus: "1"}}}]}`, `
spec.containers[0].resources.limits[cpus]: Invalid value: "cpus": must be a standard resource for containers
spec.containers[0].resources.limits[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified
spec.containers[0].resources.requests[cpus]: Invalid value: "cpus": must be a standard resource for containers
spec.containers[0].resources.requests[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified`},
		{"negative", `spec: {containers: [{name: a, image: i, resources: {requests: {cpu: "-1"}}}]}`,
			`spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0`},
		{"extended", `spec: {containers: [{name: a, image: i, resources: {requests: {example.com/gpu: 1500m}}}]}`, `
spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources
spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "1500m": must be an integer`},
		{"huge pages", `spec: {containers: [{name: a, image: i, resources: {limits: {hugepages-2Mi: 3Mi}}}]}`, `
spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
spec.containers[0].resources: Forbidden: HugePages require cpu or memory`},
		{"claims", `spec: {resourceClaims: [{name: c, resourceClaimName: x}, {name: d}], containers: [{name: a, image: i, resources: {claims: [{name: c}, {name: c}, {name: z}]}}]}`, `
spec.containers[0].resources.claims[1]: Duplicate value: "c"
spec.containers[0].resources.claims[2]: Not found: "z": must be one of the names in pod.spec.resourceClaims: c, d
spec.resourceClaims[1]: Invalid value: {"Name":"d","ResourceClaimName":null,"ResourceClaimTemplateName":null}: must specify one of: ` + "`resourceClaimName`, `resourceClaimTemplateName`"},
		{"pod level", `spec: {resources: {requests: {cpu: "1"}}, containers: [{name: a, image: i, resources: {requests: {cpu: "2"}}}]}`,
			`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`},
	})
}

func TestPodSecurity(t *testing.T) {
	runPodCases(t, []podCase{
		{"ids", `spec: {securityContext: {runAsUser: -1, fsGroup: -2, sysctls: [{name: "A"}, {name: net.core.somaxconn}]}, hostNetwork: true, containers: [{name: a, image: i}]}`, `
spec.securityContext.fsGroup: Invalid value: -2: must be between 0 and 2147483647, inclusive
spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
spec.securityContext.sysctls[0].name: Invalid value: "A": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
spec.securityContext.sysctls[1].name: Invalid value: "net.core.somaxconn": may not be specified when 'hostNetwork' is true`},
		{"seccomp", `spec: {securityContext: {seccompProfile: {type: Localhost}}, containers: [{name: a, image: i, securityContext: {seccompProfile: {type: Odd}, procMount: Unmasked}}]}`, `
spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": ` + "`hostUsers` must be false to use `Unmasked`" + `
spec.containers[0].securityContext.seccompProfile.type: Unsupported value: "Odd": supported values: "Localhost", "RuntimeDefault", "Unconfined"
spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost`},
		{"app armor", `spec: {containers: [{name: a, image: i, securityContext: {appArmorProfile: {type: RuntimeDefault, localhostProfile: x}}}]}`,
			`spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost`},
		{"windows", `spec: {os: {name: windows}, hostPID: true, containers: [{name: a, image: i, securityContext: {runAsUser: 1}}]}`, `
spec.containers[0].securityContext.runAsUser: Forbidden: cannot be set for a windows pod
spec.hostPID: Forbidden: cannot be set for a windows pod`},
		{"windows user", `spec: {containers: [{name: a, image: i, securityContext: {windowsOptions: {runAsUserName: 'a\b\c'}}}]}`,
			`spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: "a\\b\\c": runAsUserName cannot contain more than one backslash`},
		{"user namespace", `spec: {hostUsers: false, hostPID: true, hostIPC: true, shareProcessNamespace: true, containers: [{name: a, image: i}]}`, `
spec.HostIPC: Forbidden: when ` + "`hostUsers`" + ` is false
spec.HostPID: Forbidden: when ` + "`hostUsers`" + ` is false
spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled`},
		{"annotations", `{metadata: {annotations: {container.seccomp.security.alpha.kubernetes.io/a: odd, container.apparmor.security.beta.kubernetes.io/z: odd, controller.kubernetes.io/pod-deletion-cost: x}}, spec: {containers: [{name: a, image: i}]}}`, `
metadata.annotations.container.seccomp.security.alpha.kubernetes.io/a: Invalid value: "odd": must be a valid seccomp profile
metadata.annotations[container.apparmor.security.beta.kubernetes.io/z]: Invalid value: "odd": invalid AppArmor profile name: "odd"
metadata.annotations[container.apparmor.security.beta.kubernetes.io/z]: Invalid value: "z": container not found
metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "x": must be a 32bit integer`},
	})
}

func TestPodScheduling(t *testing.T) {
	runPodCases(t, []podCase{
		{"tolerations", `spec: {tolerations: [{key: a, operator: Exists, value: x}, {operator: Equal}, {key: b, tolerationSeconds: 3, effect: NoSchedule}, {key: c, operator: Near, effect: Odd}], containers: [{name: a, image: i}]}`, `
spec.tolerations[0].operator: Invalid value: "x": value must be empty when ` + "`operator`" + ` is 'Exists'
spec.tolerations[1].operator: Invalid value: "Equal": operator must be Exists when ` + "`key`" + ` is empty, which means "match all values and all keys"
spec.tolerations[2].effect: Invalid value: "NoSchedule": effect must be 'NoExecute' when ` + "`tolerationSeconds`" + ` is set
spec.tolerations[3].effect: Unsupported value: "Odd": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
spec.tolerations[3].operator: Unsupported value: "Near": supported values: "Equal", "Exists"`},
		{"node affinity", `spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: b, operator: Odd}]}, {matchFields: [{key: spec.x, operator: In, values: [a]}]}]}, preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, preference: {}}]}}, containers: [{name: a, image: i}]}`, `
spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100
spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when ` + "`operator`" + ` is 'In' or 'NotIn'
spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].operator: Invalid value: "Odd": not a valid selector operator
spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[1].matchFields[0].key: Invalid value: "spec.x": not a valid field selector key`},
		{"pod affinity", `{metadata: {labels: {v: "1"}}, spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: "", labelSelector: {matchLabels: {v: "1"}}, matchLabelKeys: [v]}]}}, containers: [{name: a, image: i}]}}`, `
spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must be non-empty
spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty
spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0][0]: Invalid value: "v": exists in both matchLabelKeys and labelSelector`},
		{"spread", `spec: {topologySpreadConstraints: [{maxSkew: 0, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 1, topologyKey: "", whenUnsatisfiable: ScheduleAnyway, minDomains: 2}], containers: [{name: a, image: i}]}`, `
spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, DoNotSchedule}"
spec.topologySpreadConstraints[2].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway
spec.topologySpreadConstraints[2].topologyKey: Required value: can not be empty`},
		{"gates", `spec: {nodeName: n, schedulingGates: [{name: a}, {name: a}], containers: [{name: a, image: i}]}`, `
spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared
spec.schedulingGates[1]: Duplicate value: "a"`},
	})
}

func TestPodNetwork(t *testing.T) {
	runPodCases(t, []podCase{
		{"dns", `spec: {dnsPolicy: None, containers: [{name: a, image: i}]}`,
			"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"},
		{"servers", `spec: {dnsConfig: {nameservers: ["x", 1.1.1.1, 1.1.1.2, 1.1.1.3], searches: ["A b"], options: [{}]}, containers: [{name: a, image: i}]}`, `
spec.dnsConfig.nameservers: Invalid value: ["x","1.1.1.1","1.1.1.2","1.1.1.3"]: must not have more than 3 nameservers
spec.dnsConfig.nameservers[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
spec.dnsConfig.options[0]: Required value: must not be empty
spec.dnsConfig.searches[0]: Invalid value: "A b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')`},
		{"host network", `spec: {hostNetwork: true, containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 81}, {containerPort: 90}]}]}`,
			"spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"},
		{"names", `spec: {hostname: A.b, hostAliases: [{ip: 300.1.1.1, hostnames: [_x]}], activeDeadlineSeconds: 0, restartPolicy: Odd, containers: [{name: a, image: i}]}`, `
spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
spec.hostAliases[0].hostnames[0]: Invalid value: "_x": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
spec.hostAliases[0].ip: Invalid value: "300.1.1.1": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
spec.hostname: Invalid value: "A.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
spec.restartPolicy: Unsupported value: "Odd": supported values: "Always", "OnFailure", "Never"`},
	})
}
