package resource

import (
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
)

// subdomain is the rule for names of most kinds. Nearly all names keep it, which is
// seen sooner than what is wrong with one.
func subdomain(name string, prefix bool) []string {
	if !prefix && plainSubdomain(name) {
		return nil
	}
	return validation.NameIsDNSSubdomain(name, prefix)
}

// plainSubdomain says that name is a DNS subdomain of lower case: labels of letters,
// digits and hyphens, not at their ends, with dots between them.
func plainSubdomain(name string) bool {
	if name == "" || len(name) > content.DNS1123SubdomainMaxLength {
		return false
	}
	before := byte('.') // what a label begins after
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		case c == '-' && before != '.', c == '.' && before != '.' && before != '-':
		default:
			return false
		}
		before = name[i]
	}
	return before != '.' && before != '-'
}
