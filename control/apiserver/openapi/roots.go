package openapi

import (
	"github.com/sampan-dev/sampan/kinds"
)

// rootMedia are the formats of discovery.
var rootMedia = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}

// roots are the paths above kinds, by the document of v3 that has them: discovery,
// the server's version, and who issues its tokens.
func roots(served []*kinds.Kind) map[string]map[string]*pathItem {
	out := map[string]map[string]*pathItem{}
	add := func(document, path string, op operation) {
		op.method = "get"
		out[document] = map[string]*pathItem{path: {operations: []operation{op}}}
	}
	finding := func(document, tag, id, about, model string) {
		add(document, "/"+document+"/", operation{tag: tag, id: id, about: about, answer: metaModels + model, takes: rootMedia, gives: rootMedia})
	}
	finding("apis", "apis", "getAPIVersions", "get available API versions", "APIGroupList")
	for _, k := range served {
		if k.Custom != nil {
			continue
		}
		name := groupName(k.GVK.Group)
		if k.GVK.Group == "" {
			finding("api", "core", "getCoreAPIVersions", "get available API versions", "APIVersions")
		} else {
			finding("apis/"+k.GVK.Group, lowerFirst(name), "get"+name+"APIGroup", "get information of a group", "APIGroup")
		}
		finding(groupPath(k), tagOf(k.GVK.GroupVersion()), "get"+name+upperFirst(k.GVK.Version)+"APIResources", "get available resources", "APIResourceList")
	}
	add("version", "/version/", operation{tag: "version", id: "getCodeVersion", about: "get the version information for this server",
		answer: "io.k8s.apimachinery.pkg.version.Info", takes: []string{"application/json"}, gives: []string{"application/json"}})
	add(".well-known/openid-configuration", "/.well-known/openid-configuration/", operation{tag: "WellKnown", id: "getServiceAccountIssuerOpenIDConfiguration",
		about: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", answer: textModel, gives: []string{"application/json"}})
	add("openid/v1/jwks", "/openid/v1/jwks/", operation{tag: "openid", id: "getServiceAccountIssuerOpenIDKeyset",
		about:  "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
		answer: textModel, gives: []string{"application/jwk-set+json"}})
	return out
}
