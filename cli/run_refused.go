package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

// noWord is what to do instead of flags of docker's that pods have no word for.
//
//nolint:gochecknoglobals // a constant table
var noWord = map[string]string{
	"device":              "a pod has devices from a device plugin or by a resource claim; one of your own has those of -v /dev/NAME:/dev/NAME with --privileged",
	"device-cgroup-rule":  "a pod has devices from a device plugin or by a resource claim, or all of them with --privileged",
	"device-read-bps":     "disks are shared by all pods of a node alike",
	"device-read-iops":    "disks are shared by all pods of a node alike",
	"device-write-bps":    "disks are shared by all pods of a node alike",
	"device-write-iops":   "disks are shared by all pods of a node alike",
	"blkio-weight":        "disks are shared by all pods of a node alike",
	"blkio-weight-device": "disks are shared by all pods of a node alike",
	"gpus":                "a pod has GPUs from a device plugin, by a limit such as nvidia.com/gpu: 1 in its manifest",
	"cgroup-parent":       "a pod's cgroup is below that of its quality of service",
	"cgroupns":            "a container sees the cgroups of this machine with --privileged",
	"cpu-rt-period":       "no pod has real-time processors",
	"cpu-rt-runtime":      "no pod has real-time processors",
	"cpuset-mems":         "where a pod's memory lies is the node's choice, by its memoryManagerPolicy",
	"ip":                  "a pod's address is the node's choice; what stays is the address of a service: sampan kubectl expose",
	"ip6":                 "a pod's address is the node's choice; what stays is the address of a service: sampan kubectl expose",
	"link-local-ip":       "a pod's address is the node's choice",
	"mac-address":         "a pod's address is the node's choice",
	"link":                "containers of one network find each other by their names: sampan network create, and run --network",
	"domainname":          "a pod's domain is its service's",
	"uts":                 "a pod has this machine's host name with --network host",
	"kernel-memory":       "the kernel counts it with the rest: --memory",
	"oom-score-adj":       "who is killed first follows from --memory and --memory-reservation",
	"volume-driver":       "volumes of drivers are claims: sampan kubectl apply of a PersistentVolumeClaim and a pod that mounts it",
}

// runIdle are flags of docker's without which the same is so, and why.
//
//nolint:gochecknoglobals // a constant table
var runIdle = map[string]string{
	"log-driver":            "what a container prints is in files of the node, for sampan logs",
	"log-opt":               "the node rotates what containers print, by containerLogMaxSize and containerLogMaxFiles of its configuration",
	"health-start-interval": "checks come at --health-interval from the start",
	"memory-swappiness":     "containers do not swap",
	"isolation":             "it is about Windows",
}

// noSocket is what to do instead of giving a container docker's own socket.
const noSocket = "there is no daemon with a socket; a pod speaks to the API server by its service account (sampan kubectl create serviceaccount)"

// runRefusedFlags are those of which nothing comes but a sentence.
func runRefusedFlags(cmd *cobra.Command, f *runFlags) {
	flags := cmd.Flags()
	f.refused, f.idle = map[string]*string{}, map[string]*[]string{}
	for name, instead := range noWord {
		f.refused[name] = flags.String(name, "", "refused: "+instead)
		hide(flags, name)
	}
	for name, why := range runIdle {
		f.idle[name] = flags.StringArray(name, nil, "does nothing: "+why)
		hide(flags, name)
	}
	flags.Bool("disable-content-trust", true, "does nothing: digests are always verified")
	flags.BoolVar(&f.apiSocket, "use-api-socket", false, "refused: "+noSocket)
	flags.BoolVar(&f.neverKill, "oom-kill-disable", false, "refused: a container over its limit has to be ended")
	hide(flags, "disable-content-trust", "oom-kill-disable", "use-api-socket")
}

// beyondPods refuses what pods have no word for, and says what does nothing.
func (b *podBuilder) beyondPods() error {
	f := b.flags
	for _, name := range slices.Sorted(maps.Keys(f.refused)) {
		said := *f.refused[name]
		if said == "" || name == "cgroupns" && said == "private" {
			continue
		}
		return fmt.Errorf("--%s %s is not possible: %s", name, said, noWord[name])
	}
	if f.apiSocket {
		return errors.New("--use-api-socket is not possible: " + noSocket)
	}
	if f.neverKill {
		return fmt.Errorf("--oom-kill-disable is not possible: a container over its limit has to be ended; give it more with --memory")
	}
	for _, name := range slices.Sorted(maps.Keys(f.idle)) {
		for _, said := range *f.idle[name] {
			if name == "log-driver" && slices.Contains([]string{"json-file", "local"}, said) {
				continue // much the same
			}
			b.note("--%s %s does nothing: %s", name, said, runIdle[name])
		}
	}
	return nil
}
