// Package audit writes down who did what: one event of audit.k8s.io/v1 for each
// stage of a request that the policy wants, to a file, to a webhook, or to both.
//
// Anybody on a request's way may add an annotation with Annotate.
package audit
