package certificates

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sampan-dev/sampan/kinds"
)

// SigningRequest is the kind by which somebody asks a signer for a certificate.
// Who asks is written into the spec by the server; the spec never changes.
func SigningRequest() *kinds.Kind {
	status := kinds.StatusRules(takeStatus, validateRequestStatus)
	approval := kinds.StatusRules(takeApproval, validateRequestApproval)
	approval.Name = "approval"
	return &kinds.Kind{
		GVK:      gvk("CertificateSigningRequest"),
		Resource: "certificatesigningrequests",
		Singular: "certificatesigningrequest",
		Short:    []string{"csr"},
		Storage:  "certificatesigningrequests",
		New:      func() kinds.Object { return &certificatesv1.CertificateSigningRequest{} },
		NewList:  func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Strategy: kinds.Strategy{
			PrepareCreate:  kinds.Each(prepareRequest),
			PrepareUpdate:  kinds.Pair(prepareRequestUpdate),
			Validate:       kinds.Check(validateRequest),
			ValidateUpdate: kinds.CheckUpdate(validateRequestUpdate),
			ValidateName:   kinds.PathName,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(certificateSigningRequestTexts(), "Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"),
			Row:     kinds.Row(requestRow),
		},
		FieldLabels: []string{"spec.signerName"},
		Fields: kinds.Fields(func(r *certificatesv1.CertificateSigningRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName}
		}),
		Subresources: []kinds.Subresource{approval, status},
	}
}

// prepareRequest leaves the requester alone: admission has written it.
func prepareRequest(r *certificatesv1.CertificateSigningRequest) {
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
}

func prepareRequestUpdate(r, old *certificatesv1.CertificateSigningRequest) {
	r.Spec, r.Status = old.Spec, old.Status
}

// takeStatus lets a signer write the certificate and its own conditions. The
// approver's conditions stay as they are, unless some were added or taken away:
// then validation says that this is not for a signer to do.
func takeStatus(next, body *certificatesv1.CertificateSigningRequest) {
	old := next.Status
	next.Status = body.Status
	keepConditions(next.Status.Conditions, old.Conditions, certificatesv1.CertificateApproved)
	keepConditions(next.Status.Conditions, old.Conditions, certificatesv1.CertificateDenied)
}

// takeApproval lets an approver write the conditions, and nothing else.
func takeApproval(next, body *certificatesv1.CertificateSigningRequest) {
	next.Status.Conditions = body.Status.Conditions
}

func keepConditions(now, old []certificatesv1.CertificateSigningRequestCondition, kind certificatesv1.RequestConditionType) {
	at, was := indices(now, kind), indices(old, kind)
	if len(at) != len(was) {
		return
	}
	for i := range at {
		now[at[i]] = old[was[i]]
	}
}

func indices(all []certificatesv1.CertificateSigningRequestCondition, kind certificatesv1.RequestConditionType) []int {
	var found []int
	for i := range all {
		if all[i].Type == kind {
			found = append(found, i)
		}
	}
	return found
}

func requestRow(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	signer, lasting := kinds.None, kinds.None
	if r.Spec.SignerName != "" {
		signer = r.Spec.SignerName
	}
	if r.Spec.ExpirationSeconds != nil {
		lasting = duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
	}
	return []any{r.Name, kinds.Created(r, now), signer, r.Spec.Username, lasting, requestState(r)}
}

// requestState is "Approved,Issued" and its like.
func requestState(r *certificatesv1.CertificateSigningRequest) string {
	has := func(kind certificatesv1.RequestConditionType) bool {
		return len(indices(r.Status.Conditions, kind)) > 0
	}
	state := "Pending"
	switch {
	case has(certificatesv1.CertificateDenied):
		state = "Denied"
	case has(certificatesv1.CertificateApproved):
		state = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}
