// Package cache is the watch cache: for one resource, everything that is stored,
// decoded once, shared by all readers, with a window of recent events from which
// watches can start.
//
// The objects live in a copy-on-write B-tree keyed "namespace/name", so that a
// snapshot is O(1) and never changes under its reader. Entries own the stored
// bytes; the decoded object is made on first use and may be dropped and made
// again; each encoding that a client asked for is made once and shared by all
// watchers.
package cache
