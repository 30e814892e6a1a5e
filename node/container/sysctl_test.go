package container

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// TestPlanSysctls is which kernel parameters a container may set: those of namespaces that
// are not the host's, under their paths.
func TestPlanSysctls(t *testing.T) {
	all := &plan.Plan{Unshare: unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	joined := &plan.Plan{Joins: []plan.Join{{Path: "/proc/thread-self/ns/net", Flag: unix.CLONE_NEWNET}, {Path: "/proc/thread-self/ns/mnt", Flag: unix.CLONE_NEWIPC}}}
	for _, c := range []struct {
		p     *plan.Plan
		name  string
		users bool
		want  string
	}{
		{all, "kernel.msgmax", false, "map[kernel/msgmax:1]"},
		{all, "kernel/shm_rmid_forced", false, "map[kernel/shm_rmid_forced:1]"},
		{all, "fs.mqueue.queues_max", false, "map[fs/mqueue/queues_max:1]"},
		{all, "net.ipv4.conf.eth0/1.rp_filter", false, "map[net/ipv4/conf/eth0.1/rp_filter:1]"},
		{all, "net/ipv4/conf/eth0.1/rp_filter", false, "map[net/ipv4/conf/eth0.1/rp_filter:1]"},
		{all, "kernel.domainname", false, "map[kernel/domainname:1]"},
		{all, "user.max_user_namespaces", true, "map[user/max_user_namespaces:1]"},
		{all, "user.max_user_namespaces", false, `sysctl "user.max_user_namespaces" is not allowed in the host's user namespace`},
		{all, "kernel.hostname", false, `sysctl "kernel.hostname" is not allowed: the spec has a field for it`},
		{&plan.Plan{Unshare: unix.CLONE_NEWUTS, Domainname: "d"}, "kernel.domainname", false, `sysctl "kernel.domainname" is not allowed: the spec has a field for it`},
		{all, "vm.swappiness", true, `sysctl "vm.swappiness" is not in a separate kernel namespace`},
		{all, "net/../vm/swappiness", true, `sysctl "net/../vm/swappiness" is not in a separate kernel namespace`},
		{all, "panic", true, `sysctl "panic" is not in a separate kernel namespace`},
		{&plan.Plan{}, "kernel.msgmax", true, `sysctl "kernel.msgmax" is not allowed in the host's ipc namespace`},
		{&plan.Plan{}, "net.core.somaxconn", true, `sysctl "net.core.somaxconn" is not allowed in the host's net namespace`},
		{joined, "net.core.somaxconn", true, `sysctl "net.core.somaxconn" is not allowed in the host's net namespace`},
		{joined, "kernel.sem", false, "map[kernel/sem:1]"},
	} {
		p := *c.p
		err := planSysctls(&p, map[string]string{c.name: "1"}, c.users)
		got := fmt.Sprint(p.Sysctls)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
