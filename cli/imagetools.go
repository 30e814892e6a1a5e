package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

// imagetoolsCommands are docker buildx imagetools: about images where they are, in
// registries.
func imagetoolsCommands(s *Settings) []*cobra.Command {
	return []*cobra.Command{imagetoolsInspect(s), imagetoolsCreate(s)}
}

// manifestCommands are docker manifest.
func manifestCommands(s *Settings) []*cobra.Command {
	verbose := false
	show := &cobra.Command{
		Use: "inspect IMAGE", Short: "Show the manifest or index that a registry has", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := image.Ask(cmd.Context(), args[0], s.transfers())
			if err != nil {
				return err
			}
			if verbose {
				return printJSON(cmd.OutOrStdout(), map[string]any{"Ref": at.Ref, "Descriptor": at.Desc, "Raw": json.RawMessage(at.Raw)})
			}
			return printJSON(cmd.OutOrStdout(), json.RawMessage(at.Raw))
		},
	}
	show.Flags().BoolVarP(&verbose, "verbose", "v", false, "what the registry says of it, too")
	foreignFlags(show, foreign{name: "insecure", why: "hosts.toml says which registries speak without TLS; those of this machine may anyhow"})
	list := []*cobra.Command{show}
	const instead = "sampan buildx imagetools create -t NAME IMAGE... makes an index of images that are in registries, in one step"
	for _, verb := range []string{"annotate", "create", "push", "rm"} {
		list = append(list, absentVerb(verb, "manifest "+verb, instead))
	}
	return list
}

func imagetoolsInspect(s *Settings) *cobra.Command {
	raw, format := false, ""
	cmd := &cobra.Command{
		Use: "inspect IMAGE", Short: "Show what a name means in its registry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := image.Ask(cmd.Context(), args[0], s.transfers())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case raw:
				_, err = out.Write(at.Raw)
				return err
			case format != "":
				view, err := askedViewOf(cmd.Context(), at, format)
				if err != nil {
					return err
				}
				return templated(out, format, []any{view})
			}
			return describeAsked(out, at)
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "the manifest or index as it is")
	cmd.Flags().StringVar(&format, "format", "", "a template with .Name, .Manifest, .SBOM and .Provenance, such as {{json .SBOM}}")
	foreignFlags(cmd, foreign{name: "builder", word: true, idle: true, why: "there is one builder"})
	return cmd
}

// askedManifest is what a template sees of a manifest or index.
type askedManifest struct {
	MediaType string               `json:"mediaType"`
	Digest    digest.Digest        `json:"digest"`
	Size      int64                `json:"size"`
	Manifests []ocispec.Descriptor `json:"manifests,omitempty"`
}

// askedView is what a template sees.
type askedView struct {
	Name     string
	Manifest askedManifest
	// SBOM and Provenance are those of an image, or of each by its platform.
	SBOM, Provenance any
}

// askedViewOf reads as much as a template asks for.
func askedViewOf(ctx context.Context, at image.Asked, text string) (askedView, error) {
	v := askedView{Name: at.Ref, Manifest: askedManifest{MediaType: at.Desc.MediaType, Digest: at.Desc.Digest, Size: at.Desc.Size}}
	all, err := at.Manifests()
	if err != nil {
		return v, err
	}
	if len(all) != 1 || all[0].Digest != at.Desc.Digest {
		v.Manifest.Manifests = all
	}
	if text != "json" && !strings.Contains(text, ".SBOM") && !strings.Contains(text, ".Provenance") {
		return v, nil
	}
	boms, origins, err := statements(ctx, at, all)
	v.SBOM, v.Provenance = soleOr(boms), soleOr(origins)
	return v, err
}

// soleOr is the only one there is, or all.
func soleOr(all map[string]any) any {
	if len(all) == 1 {
		for _, one := range all {
			return one
		}
	}
	return all
}

// statements are what an index says of its images, by their platforms, in the words of
// buildx.
func statements(ctx context.Context, at image.Asked, all []ocispec.Descriptor) (boms, origins map[string]any, err error) {
	boms, origins = map[string]any{}, map[string]any{}
	platforms := map[string]string{}
	for _, d := range all {
		if d.Platform != nil {
			platforms[d.Digest.String()] = platformText(d.Platform)
		}
	}
	for _, d := range all {
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			continue
		}
		about := platforms[d.Annotations["vnd.docker.reference.digest"]]
		raw, err := at.Part(ctx, d)
		if err != nil {
			return nil, nil, err
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, nil, fmt.Errorf("statements of %s: %w", about, err)
		}
		for _, l := range m.Layers {
			kind := l.Annotations["in-toto.io/predicate-type"]
			into, word := origins, "SLSA"
			if kind == "https://spdx.dev/Document" {
				into, word = boms, "SPDX"
			} else if !strings.HasPrefix(kind, "https://slsa.dev/provenance/") {
				continue
			}
			raw, err := at.Part(ctx, l)
			var s struct {
				Predicate json.RawMessage `json:"predicate"`
			}
			if err == nil {
				err = json.Unmarshal(raw, &s)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("%s of %s: %w", word, about, err)
			}
			into[about] = map[string]json.RawMessage{word: s.Predicate}
		}
	}
	return boms, origins, nil
}

func platformText(p *ocispec.Platform) string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// describeAsked is for a person.
func describeAsked(out io.Writer, at image.Asked) error {
	fmt.Fprintf(out, "Name:      %s\nMediaType: %s\nDigest:    %s\n", at.Ref, at.Desc.MediaType, at.Desc.Digest)
	all, err := at.Manifests()
	if err != nil || len(all) == 1 && all[0].Digest == at.Desc.Digest {
		return err
	}
	repository := strings.TrimSuffix(at.Ref, at.Ref[strings.LastIndexAny(at.Ref, ":@"):])
	repository, _, _ = strings.Cut(repository, "@")
	fmt.Fprint(out, "\nManifests:\n")
	for _, d := range all {
		fmt.Fprintf(out, "  Name:        %s@%s\n  MediaType:   %s\n", repository, d.Digest, d.MediaType)
		if d.Platform != nil {
			fmt.Fprintf(out, "  Platform:    %s\n", platformText(d.Platform))
		}
		if len(d.Annotations) > 0 {
			fmt.Fprint(out, "  Annotations:\n")
			for _, k := range slices.Sorted(maps.Keys(d.Annotations)) {
				fmt.Fprintf(out, "    %s: %s\n", k, d.Annotations[k])
			}
		}
		fmt.Fprintln(out)
	}
	return nil
}

// composing are the flags of create.
type composing struct {
	tags, annotations  []string
	appends, dry, wrap bool
}

func imagetoolsCreate(s *Settings) *cobra.Command {
	var f composing
	cmd := &cobra.Command{
		Use: "create -t NAME IMAGE...", Short: "Name what registries have by another name, several images as one index", Args: cobra.MinimumNArgs(1),
		Long: `Make an index of images that are in registries, or give one another name there. What the new
name's repository lacks is brought there, by way of this machine if it is in another registry.`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, s, args) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.tags, "tag", "t", nil, "the new name; may be given several times")
	flags.StringArrayVar(&f.annotations, "annotation", nil, "NAME=VALUE to put on the index")
	flags.BoolVar(&f.appends, "append", false, "keep what the names mean by now, and add to it")
	flags.BoolVar(&f.dry, "dry-run", false, "only show what would be sent")
	flags.BoolVar(&f.wrap, "prefer-index", true, "make an index of a single image, too")
	foreignFlags(cmd, foreign{name: "builder", word: true, idle: true, why: "there is one builder"},
		foreign{name: "progress", word: true, idle: true, why: "it is not shown"},
		foreign{name: "file", letter: "f", word: true, why: "images are named as arguments, by their digests too (NAME@sha256:...)"})
	return cmd
}

func (f composing) run(cmd *cobra.Command, s *Settings, args []string) error {
	if len(f.tags) == 0 && !f.dry {
		return errors.New("say the new name with -t, or --dry-run")
	}
	notes, err := indexNotes(f.annotations)
	if err != nil {
		return err
	}
	var sources []image.Asked
	if f.appends {
		if len(f.tags) != 1 {
			return errors.New("--append is to one name: say it with -t")
		}
		args = append([]string{f.tags[0]}, args...)
	}
	for _, ref := range args {
		at, err := image.Ask(cmd.Context(), ref, s.transfers())
		if err != nil {
			return err
		}
		sources = append(sources, at)
	}
	raw, err := image.Compose(sources, notes, f.wrap)
	if err != nil {
		return err
	}
	if f.dry {
		return printJSON(cmd.OutOrStdout(), json.RawMessage(raw))
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	return each(f.tags, func(to string) error {
		d, err := store.Send(cmd.Context(), to, raw, sources, s.transfers())
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", to, d)
		}
		return err
	})
}

// indexNotes reads annotations of an index, [index:]NAME=VALUE.
func indexNotes(args []string) (map[string]string, error) {
	var plain []string
	for _, a := range args {
		kind, rest, typed := strings.Cut(a, ":")
		switch name, _, _ := strings.Cut(a, "="); {
		case typed && kind == "index":
			a = rest
		case typed && slices.Contains([]string{"manifest", "manifest-descriptor", "index-descriptor"}, kind) && strings.Contains(name, ":"):
			return nil, fmt.Errorf("--annotation %q: only the index is given annotations", a)
		}
		plain = append(plain, a)
	}
	return pairs(plain)
}
