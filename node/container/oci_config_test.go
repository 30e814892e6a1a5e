package container

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/scan"
)

// engineConfig has what container engines write that the default has not.
const engineConfig = `{"ociVersion":"1.1.0","process":{"user":{"uid":7,"gid":8,"umask":18,"additionalGids":[8,9]},"args":["sh","-c","echo <&> 'x'"],
"env":["A=b"],"cwd":"/w","capabilities":{"bounding":[],"ambient":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1048576,"soft":1024}],
"noNewPrivileges":false,"apparmorProfile":"p","oomScoreAdj":-997},"root":{"path":"/r","readonly":true},"hostname":"h","domainname":"d",
"mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]},{"destination":"/x","source":"/y","options":[]},{}],
"hooks":{"poststop":[{"path":"/bin/h","args":["h","é"],"timeout":3}]},"annotations":{"a.b/c":"1","":""},
"linux":{"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"sysctl":{"net.ipv4.ping_group_range":"0 1"},
"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":-1,"access":"r"}],
"memory":{"limit":1073741824,"swap":-1},"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0-1"},"pids":{"limit":-1},"unified":{"pids.max":"3"}},
"cgroupsPath":"/a/b","namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/x"}],
"devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438,"uid":0}],
"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]},
"rootfsPropagation":"slave","maskedPaths":["/proc/acpi"],"readonlyPaths":[],"mountLabel":"l"}}`

// decodedAlike compares with encoding/json, and says whether that was asked.
func decodedAlike(t *testing.T, b []byte) (library bool) {
	t.Helper()
	want := &specs.Spec{}
	wrong := json.Unmarshal(b, want)
	got, err := decodeSpec(b)
	if (err == nil) != (wrong == nil) {
		t.Fatalf("%q: %v, want %v", b, err, wrong)
	}
	if err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%q:\n%+v\nwant\n%+v", b, got, want)
	}
	s := scan.New(b)
	readSpec(s, &specs.Spec{})
	return !s.Whole()
}

func TestDecodeSpec(t *testing.T) {
	usual, err := json.MarshalIndent(DefaultSpec(), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{string(usual), engineConfig} {
		if decodedAlike(t, []byte(b)) {
			t.Errorf("taken by encoding/json alone: %s", b)
		}
	}
	// Cut off and changed anywhere, it is what encoding/json says.
	for i := range engineConfig {
		decodedAlike(t, []byte(engineConfig[:i]))
		for _, c := range []string{"", "0", "null", `"`, "{}", "[]", ",", `\`, "é", "-1", "1.5", "true"} {
			decodedAlike(t, []byte(engineConfig[:i]+c+engineConfig[i+1:]))
		}
	}
	for _, b := range []string{
		`{"HostName":"a"}`, `{"hostname":"a","hostname":"b"}`, `{"root":{"path":"a"},"root":{"readonly":true}}`, `{"root":null}`,
		`{"hostname":"a\u0041"}`, `{"hostname":"é"}`, "{\"hostname\":\"\xff\"}", `{"process":{"user":{"uid":4294967296}}}`,
		`{"process":{"user":{"uid":1e3}}}`, `{"process":{"user":{"uid":01}}}`, `{"process":{"user":{"uid":-0}}}`, `{"windows":{}}`, `{} {}`, ``,
		`{"annotations":{"a":"1","a":"2"}}`, `{"linux":{"seccomp":null}}`, `{"linux":{"resources":{"pids":{"limit":null}}}}`,
		`{"hooks":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
	} {
		decodedAlike(t, []byte(b))
	}
}

func FuzzDecodeSpec(f *testing.F) {
	f.Add([]byte(engineConfig))
	f.Add([]byte(`{"process":{"args":["a"],"user":{"uid":1}},"mounts":[{"destination":"/a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) { decodedAlike(t, b) })
}
