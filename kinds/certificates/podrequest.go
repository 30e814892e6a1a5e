package certificates

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// defaultPodSeconds is the longest life of a pod's certificate unless its request
// says otherwise: a day.
const defaultPodSeconds = 24 * 60 * 60

// PodRequest is the kind by which a node asks a signer for a pod's certificate.
func PodRequest() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("PodCertificateRequest"),
		Resource:   "podcertificaterequests",
		Singular:   "podcertificaterequest",
		Namespaced: true,
		Storage:    "podcertificaterequests",
		New:        func() kinds.Object { return &certificatesv1.PodCertificateRequest{} },
		NewList:    func() runtime.Object { return &certificatesv1.PodCertificateRequestList{} },
		Strategy: kinds.Strategy{
			Default: kinds.Each(func(r *certificatesv1.PodCertificateRequest) {
				if r.Spec.MaxExpirationSeconds == nil {
					seconds := int32(defaultPodSeconds)
					r.Spec.MaxExpirationSeconds = &seconds
				}
			}),
			PrepareCreate: kinds.Each(func(r *certificatesv1.PodCertificateRequest) {
				r.Status = certificatesv1.PodCertificateRequestStatus{}
			}),
			PrepareUpdate: kinds.Pair(func(r, old *certificatesv1.PodCertificateRequest) { r.Status = old.Status }),
			Validate:      kinds.Check(validatePodRequest),
			ValidateUpdate: kinds.CheckUpdate(func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
				return kinds.Immutable(r.Spec, old.Spec, specPath)
			}),
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(podCertificateRequestTexts(), "Name", "PodName", "ServiceAccountName", "NodeName", "SignerName", "State", "UnverifiedUserAnnotations"),
			Row:     kinds.Row(podRequestRow),
		},
		FieldLabels: []string{"spec.signerName", "spec.podName", "spec.nodeName"},
		Fields: kinds.Fields(func(r *certificatesv1.PodCertificateRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
		}),
		Subresources: []kinds.Subresource{podRequestStatus()},
	}
}

// podRequestStatus changes the status alone: the metadata is not the signer's.
func podRequestStatus() kinds.Subresource {
	sub := kinds.StatusRules(func(next, body *certificatesv1.PodCertificateRequest) { next.Status = body.Status }, validatePodRequestStatus)
	sub.Copy = statusAlone
	return sub
}

func podRequestRow(r *certificatesv1.PodCertificateRequest, _ time.Time) []any {
	state := "Pending"
	for _, c := range r.Status.Conditions {
		if terminal(c.Type) {
			state = c.Type
		}
	}
	return []any{r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state,
		labels.FormatLabels(r.Spec.UnverifiedUserAnnotations)}
}
