package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/build"
)

// meant is the pod that a command line means.
func meant(line ...string) (pod *corev1.Pod, err error) {
	var f runFlags
	entrypoint := ""
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, Args: cobra.MinimumNArgs(1)}
	runFlagsOf(cmd, &f, &entrypoint)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("entrypoint") {
			f.entrypoint = &entrypoint
		}
		pod, err = podOf(f, args[0], args[1:], podPlace{volumes: "/volumes"})
		return err
	}
	cmd.SetArgs(line)
	return pod, cmd.Execute()
}

// What docker's words mean in a pod: a piece of it each, as JSON.
func TestRunWords(t *testing.T) {
	dir := t.TempDir()
	vars := filepath.Join(dir, "vars")
	if err := os.WriteFile(vars, []byte("# comment\n\nA=1\r\n  B= two words \nHERE\nNOT_HERE\nA=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HERE", "from here")
	tests := map[string]struct {
		line []string
		want []string
	}{
		"command":    {[]string{"app", "ls", "-l"}, []string{`"image":"app","args":["ls","-l"]`, `"restartPolicy":"Never"`, `"stdinOnce":true`, `"imagePullPolicy":"IfNotPresent"`}},
		"flags end":  {[]string{"app", "run", "--rm", "-it"}, []string{`"args":["run","--rm","-it"]`}},
		"entrypoint": {[]string{"--entrypoint", "/bin/sh", "app", "-c", "x"}, []string{`"command":["/bin/sh"],"args":["-c","x"]`}},
		"none":       {[]string{"--entrypoint", "", "app", "x"}, []string{`"command":["x"]`}},
		"expansion":  {[]string{"-e", "A=$(B) $$ $C", "app", "echo", "$(A)", "$A"}, []string{`"args":["echo","$$(A)","$A"]`, `{"name":"A","value":"$$(B) $$$$ $$C"}`}},
		"mount": {[]string{"--mount", "type=bind,src=" + dir + ",dst=/a,readonly", "--mount", "source=data,target=/b", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m", "--shm-size", "2m", "app"}, []string{
			`{"name":"v0","hostPath":{"path":"` + dir + `","type":""}}`, `{"name":"v0","readOnly":true,"mountPath":"/a"}`,
			`{"name":"v1","hostPath":{"path":"/volumes/data","type":"DirectoryOrCreate"}}`, `{"name":"v2","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}`,
			`{"name":"v3","mountPath":"/dev/shm"}`, `{"name":"v3","emptyDir":{"medium":"Memory","sizeLimit":"2Mi"}}`,
		}},
		"mount of an image": {[]string{"--mount", "type=image,src=tools:1,dst=/tools", "--mount", "src=data,dst=/b,volume-nocopy,volume-subpath=x", "--mount", "type=tmpfs,dst=/t,tmpfs-mode=1777", "-v", "data:/c:nocopy", "app"}, []string{
			`{"name":"v1","image":{"reference":"tools:1","pullPolicy":"IfNotPresent"}}`, `{"name":"v1","readOnly":true,"mountPath":"/tools"}`,
			`{"name":"v2","mountPath":"/b","subPath":"x"}`, `"sampan.dev/volumes-nocopy":"/c,/b,"`,
		}},
		"init":     {[]string{"--init", "--security-opt", "no-new-privileges", "--security-opt=seccomp=unconfined", "app"}, []string{`"shareProcessNamespace":true`, `"allowPrivilegeEscalation":false`, `"seccompProfile":{"type":"Unconfined"}`}},
		"terminal": {[]string{"-it", "app"}, []string{`"stdin":true`, `"tty":true`}},
		"env file": {[]string{"--env-file", vars, "-e", "C=", "app"}, []string{`"env":[{"name":"A","value":"2"},{"name":"B","value":" two words "},{"name":"HERE","value":"from here"},{"name":"C"}]`}},
		"ports": {[]string{"-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "-p", "9000-9001:90-91", "-p", "[::1]:1:2", "-p", "7", "app"}, []string{
			`{"hostPort":8080,"containerPort":80,"protocol":"TCP"}`, `{"hostPort":53,"containerPort":53,"protocol":"UDP","hostIP":"127.0.0.1"}`,
			`{"hostPort":9001,"containerPort":91,"protocol":"TCP"}`, `{"hostPort":1,"containerPort":2,"protocol":"TCP","hostIP":"::1"}`, `{"containerPort":7,"protocol":"TCP"}`,
		}},
		"volumes": {[]string{"-v", dir + ":/a:ro", "-v", "data:/b", "-v", "/c", "-v", dir + "/new:/d", "--tmpfs", "/t:size=1m", "app"}, []string{
			`{"name":"v0","hostPath":{"path":"` + dir + `","type":""}}`, `{"name":"v0","readOnly":true,"mountPath":"/a"}`,
			`{"name":"v1","hostPath":{"path":"/volumes/data","type":"DirectoryOrCreate"}}`, `{"name":"v2","emptyDir":{}}`,
			`{"name":"v3","hostPath":{"path":"` + dir + `/new","type":"DirectoryOrCreate"}}`, `{"name":"v4","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}`,
		}},
		"limits":  {[]string{"-m", "512m", "--cpus", "1.5", "app"}, []string{`"resources":{"limits":{"cpu":"1500m","memory":"512Mi"},"requests":{"cpu":"0","memory":"0"}}`}},
		"shares":  {[]string{"-m", "1g", "--memory-reservation", "512m", "-c", "512", "--cpu-quota", "150000", "app"}, []string{`"resources":{"limits":{"cpu":"1500m","memory":"1Gi"},"requests":{"cpu":"500m","memory":"512Mi"}}`}},
		"storage": {[]string{"--storage-opt", "size=1g", "--memory-swap", "-1", "app"}, []string{`"limits":{"ephemeral-storage":"1Gi"}`}},
		"ulimits": {[]string{"--ulimit", "nofile=1024:2048", "--ulimit", "memlock=-1", "--pids-limit", "50", "app"}, []string{`"sampan.dev/ulimits":"nofile=1024:2048,memlock=-1:-1"`, `"sampan.dev/pids-limit":"50"`}},
		"no net":  {[]string{"--network", "none", "app"}, []string{`"sampan.dev/network":"none"`}},
		"called":  {[]string{"--name", "My_web.1", "app"}, []string{`"name":"my-web-1"`}},
		"named":   {[]string{"--net", "mine", "--network-alias", "db", "app"}, []string{`"network.sampan.dev/mine":"member"`}},
		"counted": {[]string{"--restart", "on-failure:3", "app"}, []string{`"restartPolicy":"OnFailure"`, `"sampan.dev/most-restarts":"3"`}},
		"alone":   {[]string{"--userns", "private", "--runtime", "gvisor", "--ipc", "private", "--cgroupns", "private", "--log-driver", "none", "app"}, []string{`"hostUsers":false`, `"runtimeClassName":"gvisor"`}},
		"options": {[]string{"--security-opt", "apparmor=unconfined", "--security-opt", "label:type:spc_t", "--security-opt", "label=disable", "app"}, []string{`"appArmorProfile":{"type":"Unconfined"}`, `"seLinuxOptions":{"type":"spc_t"}`}},
		"notes":   {[]string{"--annotation", "a.example/b=c d", "--label-file", vars, "-l", "A=3", "app"}, []string{`"a.example/b":"c d"`, `"A":"3"`}},
		"network": {[]string{"--network", "host", "--pid", "host", "app"}, []string{`"hostNetwork":true`, `"hostPID":true`}},
		"power":   {[]string{"--privileged", "--cap-add", "net_admin", "--cap-drop", "CAP_CHOWN", "--read-only", "app"}, []string{`"privileged":true`, `"capabilities":{"add":["NET_ADMIN"],"drop":["CHOWN"]}`, `"readOnlyRootFilesystem":true`}},
		"restart": {[]string{"-d", "--restart", "unless-stopped", "app"}, []string{`"restartPolicy":"Always"`}},
		"names":   {[]string{"--name", "web", "--hostname", "h", "--add-host", "db:10.0.0.1", "--dns", "9.9.9.9", "app"}, []string{`"name":"web"`, `"hostname":"h"`, `"hostAliases":[{"ip":"10.0.0.1","hostnames":["db"]}]`, `"nameservers":["9.9.9.9"]`}},
		"domain":  {[]string{"--hostname", "h.example.com", "--add-host", "six=[::1]", "app"}, []string{`"hostnameOverride":"h.example.com"`, `"hostAliases":[{"ip":"::1","hostnames":["six"]}]`}},
		"search":  {[]string{"--dns-search", "a.example", "--dns-option", "ndots:2", "--dns-option", "rotate", "app"}, []string{`"dnsConfig":{"searches":["a.example"],"options":[{"name":"ndots","value":"2"},{"name":"rotate"}]}`}},
		"health": {[]string{"--health-cmd", "test -f $(F)", "--health-interval", "5s", "--health-timeout", "2s", "--health-retries", "2", "--health-start-period", "1m", "app"}, []string{
			`"readinessProbe":{"exec":{"command":["/bin/sh","-c","test -f $$(F)"]},"timeoutSeconds":2,"periodSeconds":5,"failureThreshold":2}`, `"sampan.dev/health-start-period":"1m0s"`,
		}},
		"labels":   {[]string{"-l", "tier=front", "-l", "motto=all hands on deck", "app"}, []string{`"tier":"front"`, `"annotations":{"motto":"all hands on deck"`}},
		"stopping": {[]string{"--stop-signal", "int", "--stop-timeout", "3", "app"}, []string{`"stopSignal":"SIGINT"`, `"terminationGracePeriodSeconds":3`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pod, err := meant(test.line...)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer(`\u003e`, ">").Replace(string(raw))
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("it lacks %s\n%s", want, text)
				}
			}
		})
	}
}

// What cannot be said is refused in a sentence that names it.
func TestRunRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"--device /dev/fuse app":                       "--device /dev/fuse is not possible: a pod has devices from a device plugin",
		"--ulimit nofiles=10 app":                      "want NAME=SOFT[:HARD]",
		"--ulimit nofile=10:5 app":                     "the soft limit 10 is above the hard one 5",
		"--ulimit nice=10 app":                         "does not choose its own priority",
		"--pids-limit -2 app":                          "want a number of processes",
		"--gpus all app":                               "nvidia.com/gpu",
		"--cpuset-cpus 0 app":                          "cpuManagerPolicy",
		"--use-api-socket app":                         "there is no daemon with a socket",
		"--oom-kill-disable app":                       "--memory",
		"--cpus 1 --cpu-quota 5 app":                   "exclude each other",
		"-c 2048 --cpus 1 app":                         "more than --cpus",
		"-m 6m --memory-reservation 7m app":            "more than --memory",
		"--storage-opt 5m app":                         "want size=BYTES",
		"--rm --restart always app":                    "exclude each other",
		"-p 1:1 --network none app":                    "nobody can reach",
		"--security-opt systempaths=unconfined app":    "only with --privileged",
		"--security-opt seccomp=a.json app":            "a pod names profiles that its node has",
		"--security-opt label=a app":                   "label=disable",
		"--userns mine app":                            "want private or host",
		"--annotation a app":                           "want NAME=VALUE",
		"--platform windows/arm app":                   "want linux/ARCHITECTURE",
		"-P --network host app":                        "exclude each other",
		"--mount type=image,dst=/a app":                "want source=IMAGE",
		"--mount type=npipe,dst=/a app":                "want bind, volume, tmpfs or image",
		"--expose x app":                               `--expose "x"`,
		"--health-interval 1.5s app":                   "want whole seconds",
		"--health-retries -1 app":                      "want a number of failures",
		"--no-healthcheck --health-cmd x app":          "exclude each other",
		"--name Web! app":                              `--name "Web!"`,
		"--restart on-failure:x app":                   `"x" is no number of restarts`,
		"--pull sometimes app":                         "want missing, always or never",
		"--network container:x app":                    "debug -it x",
		"--network-alias db app":                       "is for a --network",
		"--network mine --network-alias d_b app":       "as host names have them",
		"--network mine --network host app":            "excludes other networks",
		"--network name=mine,ip=10.1.1.1 app":          "ip is not possible",
		"-p 80:99999 app":                              `"99999" is no port`,
		"-p 80-81:90 app":                              "2 ports here, 1 in the container",
		"-p x:80:80 app":                               `"x" is no address`,
		"-p 80:80/icmp app":                            "want tcp, udp or sctp",
		"-p 80:80 --network host app":                  "exclude each other",
		"-v /a:b app":                                  "absolute path",
		"-v /a:/b:odd app":                             `option "odd" is unknown`,
		"-m lots app":                                  "want a size such as 512m",
		"--cpus none app":                              "want a number such as 1.5",
		"-e =x app":                                    "want NAME=VALUE",
		"--env-file /nowhere app":                      "no such file",
		"--tmpfs t app":                                "absolute path",
		"--mount type=bind,src=/no/such,target=/a app": "is not a path that there is",
		"--mount type=volume,src=/a,target=/a app":     "is not the name of a volume",
		"--mount type=odd,target=/a app":               "want bind, volume, tmpfs or image",
		"--mount what=1 app":                           `"what" is unknown`,
		"--security-opt labels=disable app":            "want no-new-privileges",
		"--add-host db app":                            "want HOST:IP",
		"--sysctl kernel.x app":                        "want NAME=VALUE",
		"--group-add wheel app":                        "want a number",
		"--stop-timeout -1 app":                        "want seconds",
		"--label bad/name/here=x app":                  "--label",
		"--publish 1-5000:1-5000 --name a b":           "range of at most 1024",
	} {
		_, err := meant(strings.Fields(line)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"512m": 512 << 20, "1g": 1 << 30, "1.5G": 3 << 29, "100": 100, "64k": 64 << 10, "10b": 10, "2mb": 2 << 20, "1Gi": 1 << 30} {
		q, err := bytesOf(text)
		if err != nil || q.Value() != want {
			t.Errorf("%s: %d, %v; want %d", text, q.Value(), err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "m", "1x", "1mm"} {
		if q, err := bytesOf(text); err == nil && text != "1m" && q.Value() > 0 && text != "m" {
			t.Errorf("%q is %d", text, q.Value())
		}
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "1000000000.5": time.Unix(1e9, 5e8), "10m": now.Add(-10 * time.Minute), "2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	if _, err := parseSince("since", "yesterday", now); err == nil {
		t.Error("yesterday is a time")
	}
}

// Ctrl-P Ctrl-Q leaves; a lone Ctrl-P is a key like any other.
func TestDetachKeys(t *testing.T) {
	left := false
	usual, err := parseKeys("")
	if err != nil {
		t.Fatal(err)
	}
	keys := &detachKeys{r: bytes.NewReader([]byte("a\x10b\x10\x10\x11never")), keys: usual, leave: func() { left = true }}
	buf := make([]byte, 8)
	var got []byte
	for {
		n, err := keys.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	if !left || string(got) != "a\x10b\x10" {
		t.Errorf("left %v, passed on %q", left, got)
	}
	for text, want := range map[string]string{"x": "x", "ctrl-a,d": "\x01d", "CTRL-\\": "\x1c", "ctrl-@,DEL": "\x00\x7f"} {
		if keys, err := parseKeys(text); err != nil || string(keys) != want {
			t.Errorf("%s is %q, %v", text, keys, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", "a,,b"} {
		if keys, err := parseKeys(text); err == nil {
			t.Errorf("%s is %q", text, keys)
		}
	}
}

// How far a pod is, as somebody who waits for its container sees it.
func TestLook(t *testing.T) {
	status := func(phase corev1.PodPhase, state corev1.ContainerState, restarts int32) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{State: state, RestartCount: restarts}}}}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "said"}}
	}
	ended := func(code int32, reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message}}
	}
	unschedulable := &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "full"},
	}}}
	held := status(corev1.PodFailed, waiting("CrashLoopBackOff"), 2)
	held.Status.ContainerStatuses[0].LastTerminationState = ended(9, "Error", "")
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want podState
	}{
		"new":       {&corev1.Pod{}, podState{}},
		"creating":  {status(corev1.PodPending, waiting("ContainerCreating"), 0), podState{}},
		"no image":  {status(corev1.PodPending, waiting("ErrImagePull"), 0), podState{doomed: "ErrImagePull: said"}},
		"no config": {status(corev1.PodPending, waiting("CreateContainerConfigError"), 0), podState{doomed: "CreateContainerConfigError: said", mayPass: true}},
		"running":   {status(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 0), podState{running: true, started: true}},
		"crashed":   {status(corev1.PodRunning, waiting("CrashLoopBackOff"), 2), podState{started: true, restarts: 2}},
		"ended":     {status(corev1.PodFailed, ended(3, "Error", ""), 0), podState{ended: true, started: true, code: 3}},
		"given up":  {held, podState{ended: true, started: true, restarts: 2, code: 9}},
		"no file":   {status(corev1.PodFailed, ended(128, "StartError", "exec: x: not found"), 0), podState{ended: true, started: true, code: 127, why: "exec: x: not found"}},
		"no right":  {status(corev1.PodFailed, ended(128, "StartError", "permission denied"), 0), podState{ended: true, started: true, code: 126, why: "permission denied"}},
		"no place":  {unschedulable, podState{doomed: "no node takes it: full", mayPass: true}},
		"refused":   {&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfcpu", Message: "too much"}}, podState{ended: true, doomed: "OutOfcpu: too much"}},
	} {
		if got := look(test.pod); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// A limit that a process has in full is not told, one that it has not is. The kernel lets
// nobody have so many files that there are none more.
func TestCutLimit(t *testing.T) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	if _, cut := cutLimit(os.Getpid(), build.Ulimit{Name: "nofile", Hard: own.Max}); cut {
		t.Error("what it has is told")
	}
	if has, cut := cutLimit(os.Getpid(), build.Ulimit{Name: "nofile", Hard: own.Max + 1}); !cut || has != strconv.FormatUint(own.Max, 10) {
		t.Errorf("more than it has: %q, %v", has, cut)
	}
}
