package kinds

import (
	"fmt"
)

// WarnOfName warns, on create, of a name that is no label: pods get names and host
// names from it.
func WarnOfName(obj, old Object) []string {
	messages := DNSLabel(obj.GetName())
	if old != nil || len(messages) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", messages)}
}

// WarnWhenChanged gives an object's warnings when it is new and whenever its
// generation goes on, each time as if it were new.
func WarnWhenChanged(warn func(obj, old Object) []string) func(obj, old Object) []string {
	return func(obj, old Object) []string {
		if old != nil && obj.GetGeneration() == old.GetGeneration() {
			return nil
		}
		return warn(obj, nil)
	}
}

// WarnAll gives the warnings of several functions, one after the other.
func WarnAll(all ...func(obj, old Object) []string) func(obj, old Object) []string {
	return func(obj, old Object) []string {
		var out []string
		for _, warn := range all {
			out = append(out, warn(obj, old)...)
		}
		return out
	}
}
