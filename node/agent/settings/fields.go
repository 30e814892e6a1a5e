package settings

import "slices"

// ignored are the fields that tune workings which this agent doesn't have. What
// runs on the node is the same with and without them.
var ignored = map[string]string{
	"httpCheckFrequency":                        "pods are read from files only",
	"staticPodURLHeader":                        "pods are read from files only",
	"rotateCertificates":                        "certificates are always renewed",
	"serverTLSBootstrap":                        "certificates come from the cluster's authority",
	"registryPullQPS":                           "maxParallelImagePulls is what bounds pulls",
	"registryBurst":                             "maxParallelImagePulls is what bounds pulls",
	"eventRecordQPS":                            "repeated events are counted, not sent again",
	"eventBurst":                                "repeated events are counted, not sent again",
	"enableContentionProfiling":                 "profiles are of processor and memory",
	"enableDebugFlagsHandler":                   "the node has no handler for log flags",
	"streamingConnectionIdleTimeout":            "streams end with their connections",
	"volumeStatsAggPeriod":                      "volumes are measured when somebody asks",
	"cgroupRoot":                                "the data directory says which cgroup is the cluster's",
	"kubeletCgroups":                            "the agent stays where it was started",
	"systemCgroups":                             "processes of the system stay where they were started",
	"cpuManagerReconcilePeriod":                 "assignments are applied when they change",
	"runtimeRequestTimeout":                     "calls to the engine have the limits of their kind",
	"hairpinMode":                               "pods reach themselves through services, always",
	"podCIDR":                                   "addresses of pods are the cluster's to give",
	"maxOpenFiles":                              "the limit of whoever starts the agent holds",
	"contentType":                               "the transport chooses the encoding",
	"kubeAPIQPS":                                "the API server's priority and fairness bounds requests",
	"kubeAPIBurst":                              "the API server's priority and fairness bounds requests",
	"enableControllerAttachDetach":              "volumes are attached by whoever their kind asks for",
	"makeIPTablesUtilChains":                    "no iptables chains are made",
	"iptablesMasqueradeBit":                     "no iptables chains are made",
	"iptablesDropBit":                           "no iptables chains are made",
	"containerLogMaxWorkers":                    "logs are looked at as they grow",
	"containerLogMonitorInterval":               "logs are looked at as they grow",
	"configMapAndSecretChangeDetectionStrategy": "ConfigMaps and Secrets are watched",
	"showHiddenMetricsForVersion":               "no metric is hidden",
	"volumePluginDir":                           "there are no flexvolume plugins",
	"kernelMemcgNotification":                   "memory is looked at every ten seconds",
	"logging":                                   "--verbose says how much is logged",
	"oomScoreAdj":                               "the value of whoever starts the agent stays",
	"tracing":                                   "the timeline is what traces: sampan trace",
	"containerRuntimeEndpoint":                  "--container-runtime-endpoint names the engine",
	"imageServiceEndpoint":                      "--container-runtime-endpoint names the engine, images included",
	"failCgroupV1":                              "both cgroup versions are served",
	"qosReserved":                               "classes have no reservations of memory",
	"syncFrequency":                             "pods are looked at when something has happened",
}

// constraint is what a field may be, and why no more.
type constraint struct {
	allowed []any
	why     string
}

func (c constraint) allows(v any) bool {
	return slices.ContainsFunc(c.allowed, func(a any) bool { return same(a, v) })
}

// same compares what JSON decoding makes of scalars; an empty string or list
// stands for nothing given.
func same(a, v any) bool {
	if list, is := v.([]any); is {
		return a == nil && len(list) == 0
	}
	if text, is := v.(string); is && text == "" {
		return a == nil
	}
	return a == v
}

// fixed are the fields of which only some values can be honoured: any other
// would be a promise about the node that isn't kept.
var fixed = map[string]constraint{
	"runOnce":              {[]any{false}, "a node that ends after its first pods is deprecated upstream, and not here"},
	"readOnlyPort":         {[]any{float64(0)}, "nothing is served to those who don't say who they are"},
	"cgroupsPerQOS":        {[]any{true}, "pods have cgroups by class, always"},
	"cgroupDriver":         {[]any{"cgroupfs", nil}, "the engine makes cgroups itself; only cgroupfs is supported"},
	"systemReservedCgroup": {[]any{nil}, "reservations are enforced on pods alone"},
	"kubeReservedCgroup":   {[]any{nil}, "reservations are enforced on pods alone"},
	"registerNode":         {[]any{true}, "the node registers itself, always"},
	"protectKernelDefaults": {[]any{false},
		"the kernel's settings are not compared with upstream's list"},
	"staticPodURL": {[]any{nil}, "pods are read from files only: see staticPodPath"},
}
