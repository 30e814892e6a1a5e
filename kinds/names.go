package kinds

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
)

// DNSLabel is what is wrong with name as a DNS label of lower case, in upstream's words.
// Nearly all names keep the rule, which is seen sooner than what is wrong with one.
func DNSLabel(name string) []string {
	if len(name) <= content.DNS1123LabelMaxLength && !strings.Contains(name, ".") && plainSubdomain(name) {
		return nil
	}
	return validation.IsDNS1123Label(name)
}

// DNSSubdomain is DNSLabel for labels with dots between them.
func DNSSubdomain(name string) []string {
	if plainSubdomain(name) {
		return nil
	}
	return validation.IsDNS1123Subdomain(name)
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
