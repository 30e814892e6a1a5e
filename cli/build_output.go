package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildOutput is where a build's result goes beside the images.
type buildOutput struct{ kind, dest string }

// parseOutput reads --output and --push.
func parseOutput(f buildFlags, stdout io.Writer) (buildOutput, error) {
	text := f.output
	if f.push {
		if text != "" && text != "type=image" && text != "type=registry" {
			return buildOutput{}, errors.New("--push and --output exclude each other: --output type=registry is what --push does")
		}
		text = "type=registry"
	}
	o := buildOutput{kind: "local", dest: text}
	switch {
	case text == "":
		return buildOutput{}, nil
	case text == "-":
		o.kind = "tar"
	case strings.Contains(text, "="):
		fields, err := fieldsOf(text, "type", "dest", "push", "name")
		if err != nil {
			return o, fmt.Errorf("--output %q: %w", text, err)
		}
		o.kind, o.dest = fields["type"], fields["dest"]
		if o.kind == "image" && fields["push"] == "true" {
			o.kind = "registry"
		}
		if o.dest == "" {
			o.dest = "-"
		}
	}
	if several := len(f.platforms) > 1; several && (o.kind == "local" || o.kind == "tar" || o.kind == "docker") {
		return o, fmt.Errorf("--output type=%s has room for one --platform; type=oci has for all of them", o.kind)
	}
	switch o.kind {
	case "image":
		return buildOutput{}, nil
	case "registry":
		if len(f.tags) == 0 {
			return o, errors.New("a registry wants a name: say it with -t")
		}
		return o, nil
	case "local":
		if o.dest == "-" {
			return o, fmt.Errorf("--output %q: say where with dest=DIRECTORY", text)
		}
		return o, nil
	case "tar", "oci", "docker":
		if o.dest == "-" && terminal(stdout) {
			return o, errors.New("an archive would fill your terminal: say where it goes with dest=FILE")
		}
		return o, nil
	}
	return o, fmt.Errorf("--output %q: want a directory, or type=local|tar|oci|docker|registry", text)
}

// write brings the result where it is wanted.
func (o buildOutput) write(ctx context.Context, store *image.Store, img image.Image, opts build.Options) error {
	refs := opts.Tags
	switch {
	case len(refs) > 0:
	case img.Index != "":
		refs = []string{img.Index.String()}
	default:
		refs = []string{img.ID}
	}
	switch o.kind {
	case "":
		return nil
	case "local":
		return build.WriteFiles(ctx, store, img, opts.Epoch, o.dest)
	case "registry":
		for _, tag := range opts.Tags {
			if _, err := store.Push(ctx, tag, opts.Pulls); err != nil {
				return err
			}
		}
		return nil
	}
	return writeTo(o.dest, os.Stdout, func(w io.Writer) error {
		switch o.kind {
		case "tar":
			return build.WriteTar(ctx, store, img, opts.Epoch, w)
		case "oci":
			return store.SaveLayout(w, refs...)
		}
		return store.Save(w, refs...)
	})
}

// buildFiles writes --iidfile and --metadata-file.
func buildFiles(f buildFlags, img image.Image, records []build.Provenance) error {
	if f.iidFile != "" {
		if err := atomicfile.Write(f.iidFile, []byte(img.ID), 0o644); err != nil {
			return err
		}
	}
	if f.metadataFile == "" {
		return nil
	}
	d := img.Manifest
	if img.Index != "" {
		d = img.Index
	}
	meta := map[string]any{"containerimage.digest": d, "containerimage.config.digest": img.ID}
	if len(f.tags) > 0 {
		meta["image.name"] = strings.Join(f.tags, ",")
	}
	if len(records) == 1 {
		meta["buildx.build.provenance"] = records[0]
	} else {
		for i, r := range records {
			meta["buildx.build.provenance/"+f.platforms[i]] = r
		}
	}
	return atomicfile.WriteJSON(f.metadataFile, meta)
}

// built says what came out.
func built(out io.Writer, img image.Image, f buildFlags, took time.Duration) error {
	if f.quiet {
		_, err := fmt.Fprintln(out, img.ID)
		return err
	}
	name := strings.Join(f.tags, ", ")
	if name == "" {
		name = "<none>"
	}
	_, err := fmt.Fprintf(out, "built %s  %s  %s  in %d ms\n", name, shortID(img.ID), size(img.Size), took.Milliseconds())
	return err
}

// buildError adds the lines of the Dockerfile and the end of a failed command's
// output.
func buildError(err error) error {
	var place *build.Failure
	text := ""
	if errors.As(err, &place) {
		text = "\n" + place.Excerpt()
	}
	var exit *build.ExitError
	if errors.As(err, &exit) && exit.Tail != "" {
		text += "\n" + strings.TrimRight(exit.Tail, "\n")
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%w%s", err, strings.TrimRight(text, "\n"))
}
