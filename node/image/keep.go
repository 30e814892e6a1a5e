package image

import (
	"fmt"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pinnedAnnotation is on the references of an image that stays though nobody uses
// it. It is the node's owner who says so, and never the image.
const pinnedAnnotation = "dev.sampan.image.pinned"

// Keep has an image stay though nobody uses it, or lets it go again. A tag is kept
// by itself, and goes on to be when it comes to mean another image; an ID or a digest
// keeps every name of the image. To let go is always of the whole image.
func (s *Store) Keep(ref string, pinned bool) error {
	err := s.change(func(index *ocispec.Index) error {
		img, err := s.find(*index, ref)
		if err != nil {
			return err
		}
		full, _ := Normalise(ref) // an abbreviated ID is no reference, and names nothing
		for i := range index.Manifests {
			entry := &index.Manifests[i]
			other, err := s.whole(*entry)
			if err != nil && isDamage(err) {
				continue
			}
			if err != nil {
				return err
			}
			name := entry.Annotations[refAnnotation]
			if other.ID != img.ID || pinned && name != full && slices.Contains(img.Tags, full) {
				continue
			}
			notes := maps.Clone(entry.Annotations) // the index before is somebody's still
			if notes == nil {
				notes = map[string]string{}
			}
			delete(notes, pinnedAnnotation)
			if pinned {
				notes[pinnedAnnotation] = "true"
			}
			entry.Annotations = notes
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pin image: %w", err)
	}
	return nil
}
