package resource

import (
	"slices"
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// Each case is an object as people write it, and all that is wrong with it, one
// complaint a line.
func TestValidate(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var errs field.ErrorList
			switch c.kind {
			case "claim":
				obj := read[resourcev1.ResourceClaim](t, c.yaml)
				defaultClaim(&obj.Spec)
				errs = validateClaim(obj)
			case "status":
				errs = validateClaimStatus(read[resourcev1.ResourceClaim](t, c.yaml), &resourcev1.ResourceClaim{})
			case "class":
				errs = validateClass(read[resourcev1.DeviceClass](t, c.yaml))
			case "slice":
				errs = validateSlice(read[resourcev1.ResourceSlice](t, c.yaml))
			}
			var said []string
			for _, e := range errs {
				said = append(said, e.Error())
			}
			want := strings.Split(strings.TrimSpace(c.want), "\n")
			if c.want == "" {
				want = nil
			}
			if !slices.EqualFunc(said, want, strings.HasPrefix) {
				t.Errorf("said:\n%s\nwant:\n%s", strings.Join(said, "\n"), c.want)
			}
		})
	}
}

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	obj := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

var cases = []struct{ name, kind, yaml, want string }{
	{"a good claim", "claim", `
spec: {devices: {requests: [
  {name: a, exactly: {deviceClassName: gpu, selectors: [{cel: {expression: 'device.attributes["gpu.example.com"].model == "big"'}}]}},
  {name: b, firstAvailable: [{name: x, deviceClassName: gpu}, {name: y, deviceClassName: gpu}]}],
  constraints: [{requests: [a, b/x], matchAttribute: gpu.example.com/numa}]}}`, ""},
	{"selectors that do not compile", "claim", `
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu, selectors: [
  {cel: {expression: 'noSuchVar'}}, {cel: {expression: '"text"'}}, {}, {cel: {expression: 'device.nothing'}}]}}]}}`, `
spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: "noSuchVar": compilation failed: ERROR: <input>:1:1: undeclared reference to 'noSuchVar'
spec.devices.requests[0].exactly.selectors[1].cel.expression: Invalid value: "\"text\"": must evaluate to bool
spec.devices.requests[0].exactly.selectors[2].cel: Required value
spec.devices.requests[0].exactly.selectors[3].cel.expression: Invalid value: "device.nothing": compilation failed: ERROR: <input>:1:7: undefined field 'nothing'`},
	{"a selector that costs too much", "class", `
spec: {selectors: [{cel: {expression: 'device.attributes["a.b"].map(x, device.attributes["a.b"].map(y, device.attributes["a.b"].map(z, x + y + z))).size() > 0'}}]}`, `
spec.selectors[0].cel.expression: Forbidden: too complex, exceeds cost limit`},
	{"names that mean nothing", "claim", `
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}, {name: a, exactly: {deviceClassName: gpu}}, {name: B}],
  constraints: [{requests: [c, a/x/y]}, {matchAttribute: numa}], config: [{requests: [a, a], opaque: {driver: d.io, parameters: [1]}}]}}`, `
spec.devices.requests[2].name: Invalid value: "B": a lowercase RFC 1123 label must consist of
spec.devices.requests[2]: Required value: exactly one of ` + "`exactly` or `firstAvailable`" + ` is required
spec.devices.constraints[0].requests[0]: Invalid value: "c": must be the name of a request in the claim or
spec.devices.constraints[0].requests[1]: Invalid value: "a/x/y": must be the name of a request in the claim or
spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required
spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object
spec.devices.requests[1]: Duplicate value: {"name":"a",
spec.devices.constraints[1].matchAttribute: Invalid value: "numa": a fully qualified name must be a domain and a name separated by a slash
spec.devices.config[0].requests[1]: Duplicate value: "a"`},
	{"a class for a resource of Kubernetes itself", "class", `
spec: {extendedResourceName: kubernetes.io/gpu}`, `
spec.extendedResourceName: Invalid value: "kubernetes.io/gpu": must not have "kubernetes.io/" domain`},
	{"a good slice", "slice", `
spec: {driver: d.io, nodeName: n, pool: {name: n, resourceSliceCount: 1}, devices: [{name: a, allowMultipleAllocations: true,
  attributes: {model: {string: x}, d.io/version: {version: 1.2.3}},
  capacity: {memory: {value: 10Gi, requestPolicy: {default: 1Gi, validRange: {min: 1Gi, step: 1Gi}}}},
  bindingConditions: [a], bindingFailureConditions: [b]}]}`, ""},
	{"devices that contradict themselves", "slice", `
spec: {driver: d.io, nodeName: n, pool: {name: n, resourceSliceCount: 1}, devices: [
  {name: a, nodeName: n, attributes: {two: {string: x, int: 1}, none: {}, v: {version: "1"}, "9": {bool: true}}, bindingConditions: [a]},
  {name: b, capacity: {m: {value: 1, requestPolicy: {default: 1}}}},
  {name: c, allowMultipleAllocations: true, capacity: {m: {value: 4, requestPolicy: {default: 3, validRange: {min: 1, max: 5, step: 4}}}}},
  {name: d, allowMultipleAllocations: true, capacity: {m: {value: 4, requestPolicy: {default: 3, validValues: ["2", "1"]}}}}]}`, `
spec.devices[0].attributes: Invalid value: "9": a valid C identifier must
spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0
spec.devices[0]: Invalid value: null: ` + "`nodeName`, `nodeSelector` and `allNodes` can only be set" + `
spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions
spec.devices[1].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true
spec.devices[2].capacity[m].requestPolicy.validRange.max: Invalid value: "5": max is larger than capacity value: 4
spec.devices[2].capacity[m].requestPolicy.validRange.step: Invalid value: "4": one step 5 is larger than capacity value: 4
spec.devices[2].capacity[m].requestPolicy.validRange.step: Invalid value: "3": value is not a multiple of a given step (4) from (1)
spec.devices[3].capacity[m].requestPolicy.validValues[1]: Invalid value: "1": values must be sorted in ascending order
spec.devices[3].capacity[m].requestPolicy.validValues: Invalid value: "3": default value is not valid according to the requestPolicy
spec.devices[0].attributes[none]: Invalid value: "": must specify one of: 
spec.devices[0].attributes[two]: Invalid value: "{int, string}": must specify exactly one of: `},
	{"a status of devices that the claim has not", "status", `
spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu}}]}}
status: {allocation: {devices: {results: [{request: b, driver: d.io, pool: p, device: x, shareID: abc}]}},
  devices: [{driver: d.io, pool: p, device: z, data: 7, networkData: {ips: [1.2.3.4]}}]}`, `
status.devices[0]: Invalid value: {"Driver":"d.io","Pool":"p","Device":"z","ShareID":""}: must be an allocated device in the claim
status.devices[0].data: Invalid value: "<value omitted>": must be a valid JSON object
status.devices[0].networkData.ips[0]: Invalid value: "1.2.3.4": must be a valid address in CIDR form
status.allocation.devices.results[0].request: Invalid value: "b": must be the name of a request in the claim or
status.allocation.devices.results[0].shareID: Invalid value: "abc": must be a lowercase UUID in 8-4-4-4-12 format`},
}
