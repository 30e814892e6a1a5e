package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/sampan-dev/sampan/node/image"
)

// packing is how an image's layers are compressed, and whose words for media types it has.
// All outputs of a build have the one image.
type packing struct {
	compression   image.Compression
	force, docker bool
	// said are the fields that an output has given.
	said map[string]string
}

// packingFields are those of an output that are about it.
var packingFields = []string{"compression", "compression-level", "force-compression", "oci-mediatypes"} //nolint:gochecknoglobals // a constant list

// errPackings: outputs that want different images.
var errPackings = errors.New("all outputs of a build are one image: build again for one that is packed in another way")

// read takes over what an output's fields say of it.
func (p *packing) read(fields map[string]string) error {
	if p.said == nil {
		p.said = map[string]string{}
	}
	for _, name := range packingFields {
		value := fields[name]
		if value == "" {
			continue
		}
		if before, ok := p.said[name]; ok && before != value {
			return fmt.Errorf("%s=%s, and %s before: %w", name, value, before, errPackings)
		}
		p.said[name] = value
		if err := p.field(name, value); err != nil {
			return fmt.Errorf("%s=%s: %w", name, value, err)
		}
	}
	if p.compression.Kind == "estargz" || p.compression.Kind == "zstd:chunked" {
		return fmt.Errorf("compression=%s: layers that are fetched piece by piece are not made here: want gzip, zstd or uncompressed", p.compression.Kind)
	}
	return p.compression.Check()
}

func (p *packing) field(name, value string) (err error) {
	switch name {
	case "compression":
		p.compression.Kind = value
	case "compression-level":
		level, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("want a number")
		}
		p.compression.Level = &level
	case "force-compression":
		p.force, err = strconv.ParseBool(value)
	case "oci-mediatypes":
		oci, err := strconv.ParseBool(value)
		p.docker = !oci
		return err
	}
	return err
}
