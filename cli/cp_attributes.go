package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// attributeRecord begins the names of a tar's records that are extended attributes.
const attributeRecord = "SCHILY.xattr."

// attributesOf are an open file's extended attributes as a tar has them: those that belong
// to the file and not to this host, as its labels do.
func attributesOf(f *os.File) (map[string]string, error) {
	all, err := image.Attributes(f, ofFile)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", f.Name(), err)
	}
	var records map[string]string
	for name, value := range all {
		if records == nil {
			records = map[string]string{}
		}
		records[attributeRecord+name] = value
	}
	return records, nil
}

// ofFile says that an attribute goes where its file goes: capabilities, access lists, and
// what programs have put there. Labels, measurements and overlayfs's marks stay.
func ofFile(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}
