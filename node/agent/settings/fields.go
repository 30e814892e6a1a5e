package settings

import "slices"

// ignored are the fields that tune workings which this agent doesn't have. What
// runs on the node is the same with and without them.
var ignored = map[string]string{
	"rotateCertificates":                        "certificates are always renewed",
	"serverTLSBootstrap":                        "certificates come from the cluster's authority",
	"enableDebugFlagsHandler":                   "the node has no handler for log flags",
	"streamingConnectionIdleTimeout":            "streams end with their connections",
	"cgroupRoot":                                "the data directory says which cgroup is the cluster's",
	"kubeletCgroups":                            "the agent stays where it was started",
	"systemCgroups":                             "processes of the system stay where they were started",
	"cpuManagerReconcilePeriod":                 "assignments are applied when they change",
	"runtimeRequestTimeout":                     "calls to the engine have the limits of their kind",
	"hairpinMode":                               "pods reach themselves through services, always; upstream leaves it to the network too",
	"contentType":                               "the transport chooses the encoding",
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
	"tracing":                                   "the timeline is what traces: sampan trace",
	"imageServiceEndpoint":                      "--container-runtime-endpoint names the engine, images included",
}

// done are values of ignored fields that say what is done anyway, or that upstream's kubelet
// has if nobody says anything.
var done = map[string][]any{
	"rotateCertificates": {true}, "serverTLSBootstrap": {true}, "enableDebugFlagsHandler": {false}, "makeIPTablesUtilChains": {false},
	"hairpinMode": {"hairpin-veth"}, "contentType": {protobuf}, "enableControllerAttachDetach": {true},
	"configMapAndSecretChangeDetectionStrategy": {"Watch"},
	"streamingConnectionIdleTimeout":            {streamIdle.String()}, "cpuManagerReconcilePeriod": {cpuReconcile.String()}, "runtimeRequestTimeout": {runtimeLimit.String()},
	"iptablesMasqueradeBit": {float64(masqueradeBit)}, "iptablesDropBit": {float64(dropBit)},
	"containerLogMaxWorkers": {float64(logWorkers)}, "containerLogMonitorInterval": {logLook.String()}, "volumePluginDir": {flexvolumes},
}

// idle reports whether a value of an ignored field asks for nothing: it is empty, as
// programs write whole configurations (kubeadm does), or what is done anyway.
func idle(name string, v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		if v == "" || v == "0s" {
			return true
		}
	case float64:
		if v == 0 {
			return true
		}
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return slices.Contains(done[name], v)
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
	"runOnce":       {[]any{false}, "a node that ends after its first pods is deprecated upstream, and not here"},
	"cgroupsPerQOS": {[]any{true}, "pods have cgroups by class, always"},
}
