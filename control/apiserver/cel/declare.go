package cel

import apiservercel "k8s.io/apiserver/pkg/cel"

// fields makes the fields of an object type.
type fields map[string]*apiservercel.DeclType

// object declares an object type. The fields named in optional may be absent.
func object(name string, all fields, optional ...string) *apiservercel.DeclType {
	declared := make(map[string]*apiservercel.DeclField, len(all))
	for field, kind := range all {
		required := true
		for _, o := range optional {
			required = required && o != field
		}
		declared[field] = apiservercel.NewDeclField(field, kind, required, nil, nil)
	}
	return apiservercel.NewObjectType(name, declared)
}

func listOf(item *apiservercel.DeclType) *apiservercel.DeclType {
	return apiservercel.NewListType(item, -1)
}

func mapOf(item *apiservercel.DeclType) *apiservercel.DeclType {
	return apiservercel.NewMapType(apiservercel.StringType, item, -1)
}

// requestType is the type of the variable request: an AdmissionRequest without uid
// and objects.
func requestType() *apiservercel.DeclType {
	text, flag := apiservercel.StringType, apiservercel.BoolType
	kind := object("kubernetes.GroupVersionKind", fields{"group": text, "version": text, "kind": text})
	resource := object("kubernetes.GroupVersionResource", fields{"group": text, "version": text, "resource": text})
	user := object("kubernetes.UserInfo", fields{"username": text, "uid": text, "groups": listOf(text), "extra": mapOf(listOf(text))},
		"username", "uid", "groups", "extra")
	return object("kubernetes.AdmissionRequest", fields{
		"kind": kind, "resource": resource, "subResource": text,
		"requestKind": kind, "requestResource": resource, "requestSubResource": text,
		"name": text, "namespace": text, "operation": text, "userInfo": user, "dryRun": flag,
		"options": apiservercel.DynType,
	}, "subResource", "requestSubResource", "namespace", "dryRun", "options")
}

// namespaceType is the type of the variable namespaceObject: a Namespace with the
// fields that upstream lets expressions see.
func namespaceType() *apiservercel.DeclType {
	text, moment, number := apiservercel.StringType, apiservercel.TimestampType, apiservercel.IntType
	metadata := object("kubernetes.NamespaceMetadata", fields{
		"name": text, "generateName": text, "namespace": text, "labels": mapOf(text), "annotations": mapOf(text),
		"UID": text, "creationTimestamp": moment, "deletionGracePeriodSeconds": number, "deletionTimestamp": moment,
		"generation": number, "resourceVersion": text, "finalizers": listOf(text),
	})
	condition := object("kubernetes.NamespaceCondition", fields{
		"status": text, "type": text, "lastTransitionTime": moment, "message": text, "reason": text})
	return object("kubernetes.Namespace", fields{
		"metadata": metadata,
		"spec":     object("kubernetes.NamespaceSpec", fields{"finalizers": listOf(text)}),
		"status":   object("kubernetes.NamespaceStatus", fields{"conditions": listOf(condition), "phase": text}),
	})
}
