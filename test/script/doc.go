// Package script tells sampan's stories and checks that they are true: each file
// of testdata is one, in the words that a person would type, with the real
// program, its real kubectl and real containers.
//
// Every story has a network namespace, a data directory and a cgroup of its own,
// so nothing of the host's network is touched, and stories run side by side. At
// its end, and also when it fails, the cluster is taken down and the machine is
// searched for anything that is left: mounts, interfaces, packet filter tables,
// cgroups, processes, files.
//
// The stories want root and are skipped without. They use $SAMPAN, or bin/sampan
// at the root of the module, which make test builds first.
package script
