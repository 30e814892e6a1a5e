package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// buildOutput is where a build's result goes beside the images.
type buildOutput struct {
	kind, dest string
	// loose: an archive's files are wanted in a directory, or several platforms' in one.
	loose bool
}

// streams says whether it goes to standard output.
func (o buildOutput) streams() bool {
	return o.dest == "-" && (o.kind == "tar" || o.kind == "oci" || o.kind == "docker")
}

// outputFields are what --output may say; BuildKit has more, which mean what is so here.
var outputFields = []string{ //nolint:gochecknoglobals // a constant list
	"type", "dest", "push", "name", "tar", "platform-split", "compression", "compression-level", "oci-mediatypes", "rewrite-timestamp", "unpack", "store", "dangling-name-prefix", "force-compression",
}

// parseOutputs reads --output and --push. Names and annotations in them are the result's.
func parseOutputs(f *buildFlags, stdout io.Writer) ([]buildOutput, error) {
	texts := f.outputs
	if f.push {
		for _, text := range texts {
			if text != "type=image" && text != "type=registry" {
				return nil, errors.New("--push and --output exclude each other: --output type=registry is what --push does")
			}
		}
		texts = []string{"type=registry"}
	}
	var all []buildOutput
	stdouts := 0
	for _, text := range texts {
		o, err := parseOutput(text, f)
		if err == nil {
			err = o.check(*f, text, stdout)
		}
		if err != nil {
			return nil, err
		}
		if o.streams() {
			stdouts++
		}
		if o.kind != "" {
			all = append(all, o)
		}
	}
	if stdouts > 1 {
		return nil, errors.New("standard output has room for one --output: say where the others go with dest=FILE")
	}
	return all, nil
}

// parseOutput reads one.
func parseOutput(text string, f *buildFlags) (buildOutput, error) {
	o := buildOutput{kind: "local", dest: text}
	if text == "-" {
		o.kind = "tar"
	}
	if !strings.Contains(text, "=") {
		return o, nil
	}
	fields, err := outputOf(text, f)
	if err != nil {
		return o, fmt.Errorf("--output %q: %w", text, err)
	}
	o.kind, o.dest = fields["type"], fields["dest"]
	if o.kind == "image" || o.kind == "cacheonly" { // what is built is kept, and remembered, anyhow
		o.kind = ""
		if fields["push"] == "true" {
			o.kind = "registry"
		}
	}
	if o.dest == "" {
		o.dest = "-"
	}
	if err := f.pack.read(fields); err != nil {
		return o, fmt.Errorf("--output %q: %w", text, err)
	}
	o.loose = fields["tar"] == "false" || fields["platform-split"] == "false"
	if name := fields["name"]; name != "" {
		f.tags = append(f.tags, strings.Split(name, ",")...)
	}
	return o, nil
}

// outputOf reads an output's fields; annotations go to the flag that means the same.
func outputOf(text string, f *buildFlags) (map[string]string, error) {
	parts, err := commas(text)
	if err != nil {
		return nil, err
	}
	var rest []string
	for _, part := range parts {
		if note, ok := strings.CutPrefix(part, "annotation."); ok {
			f.annotations = append(f.annotations, note)
			continue
		}
		if note, ok := strings.CutPrefix(part, "annotation-"); ok { // with the type of what it is of
			f.annotations = append(f.annotations, strings.Replace(note, ".", ":", 1))
			continue
		}
		rest = append(rest, part)
	}
	return fieldsIn(rest, outputFields...)
}

// manifestNotes reads annotations, [TYPE,...:]NAME=VALUE, of which those of manifests are
// all that there is.
func manifestNotes(args []string) (map[string]string, error) {
	var plain []string
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		types, _, typed := strings.Cut(name, ":")
		known := typed
		for one := range strings.SplitSeq(types, ",") {
			known = known && slices.Contains([]string{"manifest", "index", "manifest-descriptor", "index-descriptor"}, one)
			if known && one != "manifest" {
				return nil, fmt.Errorf("--annotation %q: only manifests are given annotations", a)
			}
		}
		if known {
			a = strings.TrimPrefix(a, types+":")
		}
		plain = append(plain, a)
	}
	return pairs(plain)
}

// check says what is wrong with an output, if anything.
func (o buildOutput) check(f buildFlags, text string, stdout io.Writer) error {
	switch o.kind {
	case "":
		return nil
	case "registry":
		if len(f.tags) == 0 {
			return errors.New("a registry wants a name: say it with -t")
		}
		return nil
	case "local":
		if o.dest == "-" {
			return fmt.Errorf("--output %q: say where with dest=DIRECTORY", text)
		}
		if o.loose && len(f.platforms) > 1 {
			return fmt.Errorf("--output %q: the files of several platforms in one directory would be in each other's way", text)
		}
		return nil
	case "tar", "oci", "docker":
		if o.kind == "docker" && len(f.platforms) > 1 {
			return errors.New("--output type=docker has room for one --platform; type=oci has for all of them")
		}
		if o.loose && (o.dest == "-" || o.kind == "tar") {
			return fmt.Errorf("--output %q: without a tar it wants type=oci or docker, and dest=DIRECTORY", text)
		}
		if o.dest == "-" && terminal(stdout) {
			return errors.New("an archive would fill your terminal: say where it goes with dest=FILE")
		}
		return nil
	}
	return fmt.Errorf("--output %q: want a directory, or type=local|tar|oci|docker|image|registry", text)
}

// write brings the result where it is wanted; parts are its images, one a platform.
func (o buildOutput) write(ctx context.Context, store *image.Store, img image.Image, opts build.Options, parts []build.Part) error {
	refs := opts.Tags
	switch {
	case len(refs) > 0:
	case img.Index != "":
		refs = []string{img.Index.String()}
	default:
		refs = []string{img.ID}
	}
	if len(parts) == 1 {
		parts[0].Dir = ""
	}
	switch o.kind {
	case "local":
		for _, p := range parts {
			if err := build.WriteFiles(ctx, store, p.Image, opts.Epoch, filepath.Join(o.dest, p.Dir)); err != nil {
				return err
			}
		}
		return nil
	case "registry":
		for _, tag := range opts.Tags {
			if _, err := store.Push(ctx, tag, opts.Pulls); err != nil {
				return err
			}
		}
		return nil
	}
	save := func(w io.Writer) error {
		switch o.kind {
		case "tar":
			return build.WriteTars(ctx, store, parts, opts.Epoch, w)
		case "oci":
			return store.SaveLayout(w, refs...)
		}
		return store.Save(w, refs...)
	}
	if o.loose {
		return writeLoose(ctx, o.dest, save)
	}
	return writeTo(o.dest, os.Stdout, 0o644, save)
}

// writeLoose puts the files of an archive into a directory.
func writeLoose(ctx context.Context, dir string, save func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // it is the caller's, to be read by whoever may
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(save(writer)) }()
	defer func() { _ = reader.Close() }() // never fails
	return image.Extract(ctx, reader, dir)
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
