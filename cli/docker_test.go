package cli

import (
	"io"
	"strings"
	"testing"
)

// Docker's words lead to sampan's verbs, or to what does the same.
func TestDockerWords(t *testing.T) {
	root := New(Program{})
	for words, want := range map[string]string{
		"image ls": "ls", "image rm x": "rm", "container ls": "ls", "container list": "ls", "container run x": "run", "container diff x": "diff",
		"builder prune": "prune", "buildx build .": "build", "system prune": "prune",
		"system df": "df", "system info": "info", "volume ls": "ls", "volume remove x": "rm", "container pause x": "pause", "network ls": "ls", "container update x": "update",
	} {
		if cmd, _, err := root.Find(strings.Fields(words)); err != nil || cmd.Name() != want {
			t.Errorf("%s is %v, %v", words, cmd.CommandPath(), err)
		}
	}
	for words, want := range map[string]string{
		"volume sign x": "there is no sampan volume sign", "update --restart always web": "a pod keeps its restart policy", "image sign x": "there is no sampan image sign",
		"update web": "say what to change", "network connect --ip 10.1.1.1 a b": "--ip is not possible", "rename a b": "a pod keeps its name", "start -a a b": "accepts 1 arg(s), received 2", "exec --privileged a sh": "sampan run --privileged",
		"network create --subnet 10.1.0.0/16 x": "--subnet is not possible: all pods of a cluster are on one network",
		"volume create -o type=nfs x":           "--opt is not possible: a volume is a directory", "update --cpuset-mems 0 web": "memoryManagerPolicy", "rm -l web": "there are no links",
		"images --tree": "--tree is not possible", "build --policy filename=x .": "builds heed no policies",
		"volume prune --filter until=1h": "want label=NAME", "builder prune --filter label=x": "want until=TIME", "events --filter x=y": "want container=", "start --checkpoint c web": "POST /checkpoint",
	} {
		root := New(Program{})
		root.SetArgs(strings.Fields(words))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", words, err)
		}
	}
	// What is there is not said to be absent.
	for _, cmd := range New(Program{}).Commands() {
		if absent[cmd.Name()] != "" && !cmd.DisableFlagParsing {
			t.Errorf("%s is both", cmd.Name())
		}
	}
}

// A program that asks for the version gets it alone.
func TestVersion(t *testing.T) {
	for format, want := range map[string]string{"{{.Server.Version}}": "v1.2.3\n", "{{.Client.Os}}": "linux\n", "": "sampan v1.2.3 (Kubernetes v1.37)\n"} {
		root, out := New(Program{Version: "sampan v1.2.3 (Kubernetes v1.37)"}), strings.Builder{}
		root.SetArgs([]string{"version", "-f", format})
		root.SetOut(&out)
		if err := root.Execute(); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v", format, out.String(), err)
		}
	}
}

// Every flag of docker run's is known here: it acts, or it says what to do instead. Those
// of Windows alone are left out.
func TestEveryFlagOfRun(t *testing.T) {
	run, _, err := New(Program{}).Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(`add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns
		cidfile cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device
		device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-option dns-search
		domainname entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval
		health-start-period health-timeout help hostname init interactive ip ip6 ipc isolation kernel-memory label label-file link
		link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network
		network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet
		read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit user
		userns uts volume volume-driver volumes-from workdir`) {
		if run.Flags().Lookup(name) == nil {
			t.Errorf("run has no --%s", name)
		}
	}
	for _, letter := range "acdehilmpPqtuvw" {
		if run.Flags().ShorthandLookup(string(letter)) == nil {
			t.Errorf("run has no -%c", letter)
		}
	}
}
