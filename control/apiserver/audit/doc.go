// Package audit writes down who did what: an event of audit.k8s.io/v1 for each
// stage of a request that the policy wants, to a file, to a webhook, or to both.
//
// Anybody on a request's way may add an annotation with Annotate. Bodies are
// written only where a policy asks for level Request or more; without a policy
// there are none, and so never a Secret's data.
package audit
