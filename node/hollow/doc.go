// Package hollow makes nodes without anything in them: the real agent with its
// real traffic (registration, leases, status of node and pods, watches), and an
// engine that only remembers. What a cluster does with thousands of nodes can be
// tried on one machine. Each node has its own watches, though not its own connection;
// what pods of one owner have in common, and the agents' metrics, are kept once.
//
// A pod's containers run from their start until they are stopped, and are ready at
// once; one with the annotation RunsFor ends well after that time. Volumes,
// probes, hooks and init containers are not carried out: the agent is not told of
// them.
package hollow
