package certificates

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
)

// What the columns of tables mean, as clients may show it. What is a field of the API is
// explained in the API's own words.

func certificateSigningRequestTexts() map[string]string {
	return map[string]string{
		"SignerName":        certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()["signerName"],
		"Requestor":         certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()["request"],
		"RequestedDuration": certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["expirationSeconds"],
		"Condition":         certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"],
	}
}

func clusterTrustBundleTexts() map[string]string {
	return map[string]string{
		"SignerName": certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"],
	}
}

func podCertificateRequestTexts() map[string]string {
	return map[string]string{
		"PodName":                   certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()["podName"],
		"ServiceAccountName":        certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()["serviceAccountName"],
		"NodeName":                  certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()["nodeName"],
		"SignerName":                certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()["signerName"],
		"State":                     "Is the request Pending, Issued, Denied, or Failed?",
		"UnverifiedUserAnnotations": certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()["unverifiedUserAnnotations"],
	}
}
