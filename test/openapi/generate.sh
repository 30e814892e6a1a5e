#!/bin/sh
# Writes control/apiserver/openapi/definitions.json.gz from the k8s.io libraries
# that go.mod names. Takes about a minute of CPU time.
set -eu
cd "$(dirname "$0")"
api=$(go list -m -f '{{.Dir}}' k8s.io/api)
packages=$(cd "$api" && grep -rl '+k8s:openapi-gen=true' --include=doc.go . | xargs -n1 dirname | sed 's|^\./|k8s.io/api/|' | grep -v -e testdata -e apidiscovery -e imagepolicy | sort)
go run k8s.io/kube-openapi/cmd/openapi-gen \
	--output-dir generated --output-pkg github.com/sampan-dev/sampan/test/openapi/generated \
	--output-file openapi.go --go-header-file /dev/null --report-filename /dev/null \
	$packages \
	k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 k8s.io/kube-aggregator/pkg/apis/apiregistration/v1 \
	k8s.io/metrics/pkg/apis/metrics/v1beta1 \
	k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version \
	k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr
rm -f generated/stub.go
go run . ../../control/apiserver/openapi/definitions.json.gz
