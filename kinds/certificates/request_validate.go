package certificates

import (
	"context"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

type (
	signingRequest = certificatesv1.CertificateSigningRequest
	condition      = certificatesv1.CertificateSigningRequestCondition
	conditionType  = certificatesv1.RequestConditionType
)

// legacySigner is refused for new requests: it came with an older version of the API.
const legacySigner = "kubernetes.io/legacy-unknown"

// minRequestSeconds is the shortest life that may be asked for.
const minRequestSeconds = 600

var usages = []certificatesv1.KeyUsage{
	certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment,
	certificatesv1.UsageKeyEncipherment, certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment,
	certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign, certificatesv1.UsageEncipherOnly,
	certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
	certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection,
	certificatesv1.UsageSMIME, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
	certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping, certificatesv1.UsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
}

// leniency is what a stored request may have that a new one may not: an update
// must not fail because of what was already wrong.
type leniency struct {
	legacySigner, unknownUsages, doubleUsages       bool
	approvedAndDenied, doubleTypes, untyped, anyPEM bool
	// mayApprove and mayIssue are what a subresource is for.
	mayApprove, mayIssue bool
}

// lenient compares with the stored object; old is nil on create.
func lenient(now, old *signingRequest) leniency {
	if old == nil {
		return leniency{}
	}
	has := func(kind conditionType) bool { return len(indices(old.Status.Conditions, kind)) > 0 }
	return leniency{
		legacySigner:      old.Spec.SignerName == legacySigner,
		unknownUsages:     slices.ContainsFunc(old.Spec.Usages, func(u certificatesv1.KeyUsage) bool { return !slices.Contains(usages, u) }),
		doubleUsages:      repeats(old.Spec.Usages),
		approvedAndDenied: has(certificatesv1.CertificateApproved) && has(certificatesv1.CertificateDenied),
		doubleTypes:       repeats(typesOf(old.Status.Conditions)),
		untyped:           has(""),
		anyPEM:            sameBytes(now.Status.Certificate, old.Status.Certificate) || checkIssued(old.Status.Certificate) != nil,
	}
}

func repeats[T comparable](all []T) bool {
	for i := range all {
		if slices.Contains(all[:i], all[i]) {
			return true
		}
	}
	return false
}

func typesOf(all []condition) []conditionType {
	types := make([]conditionType, 0, len(all))
	for _, c := range all {
		types = append(types, c.Type)
	}
	return types
}

func validateRequest(r *signingRequest) field.ErrorList {
	var f kinds.Faults
	checkRequest(&f, r, lenient(r, nil))
	return f.List()
}

func validateRequestUpdate(r, old *signingRequest) field.ErrorList {
	return decisions(r, old).Behind(checkRequestUpdate(r, old, lenient(r, old)))
}

func validateRequestStatus(r, old *signingRequest) field.ErrorList {
	l := lenient(r, old)
	l.mayIssue = true
	return decisions(r, old).Behind(checkRequestUpdate(r, old, l))
}

func validateRequestApproval(r, old *signingRequest) field.ErrorList {
	l := lenient(r, old)
	l.mayApprove = true
	return decisions(r, old).Behind(checkRequestUpdate(r, old, l))
}

func checkRequest(f *kinds.Faults, r *signingRequest, l leniency) {
	spec := kinds.NewPath("spec")
	parsed, err := ParseRequest(r.Spec.Request)
	if err == nil {
		err = parsed.CheckSignature()
	}
	if err != nil {
		f.Invalid(spec.Child("request"), r.Spec.Request, err.Error())
	}
	if len(r.Spec.Usages) == 0 {
		f.Required(spec.Child("usages"), "")
	}
	for i, u := range r.Spec.Usages {
		if !l.unknownUsages {
			kinds.OneOf(f, spec.Child("usages").Index(i), u, usages...)
		}
	}
	for i, u := range r.Spec.Usages {
		if !l.doubleUsages && slices.Contains(r.Spec.Usages[:i], u) {
			f.Duplicate(spec.Child("usages").Index(i), u)
		}
	}
	if !l.legacySigner && r.Spec.SignerName == legacySigner {
		f.Invalid(spec.Child("signerName"), r.Spec.SignerName, "the legacy signerName is not allowed via this API version")
	} else {
		f.Join(kinds.SignerName(r.Spec.SignerName, spec.Child("signerName")))
	}
	if s := r.Spec.ExpirationSeconds; s != nil && *s < minRequestSeconds {
		f.Invalid(spec.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)")
	}
	checkConditions(f, r.Status.Conditions, l)
	if !l.anyPEM {
		if err := checkIssued(r.Status.Certificate); err != nil {
			f.Invalid(kinds.NewPath("status").Child("certificate"), "<certificate data>", err.Error())
		}
	}
}

// decisions is upstream's declared rule that a request is not both approved and
// denied.
func decisions(now, old *signingRequest) *declared.Rules {
	r := declared.For(old)
	is := func(kind conditionType) validate.ExtractorFn[[]condition, bool] {
		return func(all []condition) bool { return len(indices(all, kind)) > 0 }
	}
	declared.Field(r, now, old, kinds.NewPath("status").Child("conditions"), func(c *signingRequest) []condition { return c.Status.Conditions },
		func(now, was []condition, at *kinds.Path) {
			if len(now) > 0 {
				r.Join(validate.ZeroOrOneOfUnion(context.Background(), r.Operation(), at.Field(), now, was, oneDecision,
					is(certificatesv1.CertificateApproved), is(certificatesv1.CertificateDenied)))
			}
		})
	return r
}

var oneDecision = validate.NewUnionMembership(validate.NewUnionMember(`conditions[{"type": "Approved"}]`), validate.NewUnionMember(`conditions[{"type": "Denied"}]`))

func checkConditions(f *kinds.Faults, all []condition, l leniency) {
	at := kinds.NewPath("status").Child("conditions")
	for i, c := range all {
		if c.Type == "" && !l.untyped {
			f.Required(at.Index(i).Child("type"), "")
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown}
		if decisive(c.Type) {
			allowed = allowed[:1]
		}
		kinds.RequiredOneOf(f, at.Index(i).Child("status"), c.Status, allowed...)
		other := map[conditionType]conditionType{
			certificatesv1.CertificateApproved: certificatesv1.CertificateDenied,
			certificatesv1.CertificateDenied:   certificatesv1.CertificateApproved,
		}[c.Type]
		if other != "" && !l.approvedAndDenied && len(indices(all[:i], other)) > 0 {
			f.Invalid(at, c.Type, "Approved and Denied conditions are mutually exclusive")
		}
		if !l.doubleTypes && len(indices(all[:i], c.Type)) > 0 {
			f.Duplicate(at.Index(i).Child("type"), c.Type)
		}
	}
}

// decisive conditions are true or not there, and never go away.
func decisive(kind conditionType) bool {
	return kind == certificatesv1.CertificateApproved || kind == certificatesv1.CertificateDenied || kind == certificatesv1.CertificateFailed
}

func checkRequestUpdate(r, old *signingRequest, l leniency) field.ErrorList {
	var f kinds.Faults
	checkRequest(&f, r, l)
	at := kinds.NewPath("status").Child("conditions")
	for _, kind := range []conditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		if len(indices(r.Status.Conditions, kind)) < len(indices(old.Status.Conditions, kind)) {
			f.Forbidden(at, fmt.Sprintf("updates may not remove a condition of type %q", kind))
		}
	}
	for _, kind := range []conditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied} {
		if !l.mayApprove {
			checkDecision(&f, at, kind, only(r.Status.Conditions, kind), only(old.Status.Conditions, kind))
		}
	}
	if sameBytes(r.Status.Certificate, old.Status.Certificate) {
		return f.List()
	}
	at = kinds.NewPath("status").Child("certificate")
	if !l.mayIssue {
		f.Forbidden(at, "updates may not set certificate content")
	} else if len(old.Status.Certificate) > 0 {
		f.Forbidden(at, "updates may not modify existing certificate content")
	}
	return f.List()
}

func only(all []condition, kind conditionType) []condition {
	var found []condition
	for _, i := range indices(all, kind) {
		found = append(found, all[i])
	}
	return found
}

// checkDecision refuses an approval, or a change of one, outside of the approval
// subresource. Removal has been refused already.
func checkDecision(f *kinds.Faults, at *kinds.Path, kind conditionType, now, old []condition) {
	switch {
	case len(now) < len(old):
	case len(now) > len(old):
		f.Forbidden(at, fmt.Sprintf("updates may not add a condition of type %q", kind))
	case !kinds.Same(now, old):
		f.Forbidden(at, fmt.Sprintf("updates may not modify a condition of type %q\n%v", kind, kinds.Diff(old, now)))
	}
}
