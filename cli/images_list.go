package cli

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

// imagesFormat is how images shows them, and which.
type imagesFormat struct {
	quiet, whole, digests bool
	output, format        string
	filters               []string
}

func imagesCommand(s *Settings) *cobra.Command {
	var show imagesFormat
	cmd := &cobra.Command{
		Use: "images [REPOSITORY[:TAG]]", Short: "List the images on this machine", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				show.filters = append(show.filters, "reference="+name)
			}
			if _, err := imageFilters(show.filters, nil); err != nil {
				return err
			}
			store, err := s.images()
			if err != nil {
				return err
			}
			keep, err := imageFilters(show.filters, store.Get)
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			return show.print(cmd.OutOrStdout(), slices.DeleteFunc(list, func(i image.Image) bool { return !keep(i) }))
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&show.quiet, "quiet", "q", false, "IDs only")
	flags.BoolVar(&show.whole, "no-trunc", false, "IDs in full")
	flags.BoolVar(&show.digests, "digests", false, "digests of manifests, too")
	flags.StringArrayVarP(&show.filters, "filter", "f", nil, "reference=PATTERN, before=IMAGE, since=IMAGE, until=TIME, dangling=true|false, pinned=true|false or label=NAME[=VALUE]")
	flags.BoolP("all", "a", false, "nothing: there are no hidden images")
	flags.StringVar(&show.format, "format", "table", "table, json, or a template such as {{.Repository}}:{{.Tag}} {{.Size}}")
	flags.StringVarP(&show.output, "output", "o", "", "json, for machines: all that is known of them")
	foreignFlags(cmd, foreign{name: "tree", why: "an image is shown for the platform that containers here are made of; sampan images --digests and -o json tell what else is known"})
	return cmd
}

// imageRow is one name of an image, with the fields that docker's templates have.
type imageRow struct {
	Repository, Tag, Digest, ID   string
	CreatedSince, CreatedAt, Size string
}

const noName = "<none>"

// rows are an image's names, a row each; one without a name has a row too.
func (f imagesFormat) rows(img image.Image) []imageRow {
	row := imageRow{Repository: noName, Tag: noName, Digest: noName, ID: shortID(img.ID), CreatedSince: age(img.Created) + " ago",
		CreatedAt: img.Created.Format(time.RFC3339), Size: size(img.Size)}
	if f.whole {
		row.ID = img.ID
	}
	if img.Manifest != "" {
		row.Digest = img.Manifest.String()
	}
	var all []imageRow
	for _, name := range img.Tags {
		row.Repository, row.Tag = splitTag(name)
		row.Repository = familiar(row.Repository)
		all = append(all, row)
	}
	if len(all) == 0 {
		return []imageRow{row}
	}
	return all
}

// familiar is a repository, or an image in it, as people say it, and docker shows it: without the registry
// that is meant when none is named.
func familiar(repository string) string {
	rest, ok := strings.CutPrefix(repository, "docker.io/")
	if !ok {
		return repository
	}
	return strings.TrimPrefix(rest, "library/")
}

func splitTag(name string) (repository, tag string) {
	at := strings.LastIndexByte(name, ':')
	return name[:at], name[at+1:]
}

// print writes a table, IDs, JSON, or what a template makes of each.
func (f imagesFormat) print(out io.Writer, list []image.Image) error {
	if f.output == "json" {
		return printJSON(out, list)
	}
	text, table := strings.CutPrefix(f.format, "table")
	text = strings.TrimSpace(text)
	if f.quiet {
		text, table = "{{.ID}}", false
	}
	rows := []any{}
	seen := map[string]bool{}
	for _, img := range list {
		for _, r := range f.rows(img) {
			if f.quiet && seen[r.ID] {
				continue
			}
			seen[r.ID] = true
			rows = append(rows, r)
		}
	}
	if text == "" {
		return f.table(out, rows)
	}
	if table {
		rows = append([]any{imageRow{"REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "CREATED AT", "SIZE"}}, rows...)
	}
	return templated(out, text, rows)
}

func (f imagesFormat) table(out io.Writer, rows []any) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	digest := func(text string) string {
		if f.digests {
			return text + "\t"
		}
		return ""
	}
	fmt.Fprintf(w, "REPOSITORY\tTAG\t%sIMAGE ID\tAGE\tSIZE\n", digest("DIGEST"))
	for _, any := range rows {
		r, _ := any.(imageRow)
		fmt.Fprintf(w, "%s\t%s\t%s%s\t%s\t%s\n", r.Repository, r.Tag, digest(r.Digest), r.ID, strings.TrimSuffix(r.CreatedSince, " ago"), r.Size)
	}
	return w.Flush()
}

// imageFilters reads --filter: of one name any must fit, of different ones all.
// find gets the images that before and since compare with; without it, all else is read.
func imageFilters(texts []string, find func(string) (image.Image, error)) (func(image.Image) bool, error) {
	byName := filters[image.Image]{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--filter %q: want NAME=VALUE", text)
		}
		var fits func(image.Image) bool
		var err error
		switch name {
		case "before", "since", "until":
			if fits, err = ageFilter(name, value, find); fits == nil && err == nil {
				continue
			}
		default:
			fits, err = imageFilter(name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("--filter %q: %w", text, err)
		}
		byName[name] = append(byName[name], fits)
	}
	return byName.fit, nil
}

// ageFilter compares when images were made: with that of another, or with a time, or what
// was so long ago.
func ageFilter(name, value string, find func(string) (image.Image, error)) (func(image.Image) bool, error) {
	if name == "until" {
		at, err := untilTime(value)
		return func(img image.Image) bool { return img.Created.Before(at) }, err
	}
	if find == nil {
		return nil, nil
	}
	other, err := find(value)
	if err != nil {
		return nil, err
	}
	if name == "since" {
		return func(img image.Image) bool { return img.Created.After(other.Created) }, nil
	}
	return func(img image.Image) bool { return img.Created.Before(other.Created) }, nil
}

// untilTime is a moment, or how long ago it was.
func untilTime(value string) (time.Time, error) {
	if ago, err := time.ParseDuration(value); err == nil {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, errors.New("want a duration such as 24h, or a time such as 2006-01-02T15:04:05Z")
	}
	return at, nil
}

func imageFilter(name, value string) (func(image.Image) bool, error) {
	switch name {
	case "dangling", "pinned":
		if value != "true" && value != "false" {
			return nil, errors.New("want true or false")
		}
		return func(img image.Image) bool {
			is := img.Pinned
			if name == "dangling" {
				is = len(img.Tags) == 0
			}
			return is == (value == "true")
		}, nil
	case "label":
		key, want, exact := strings.Cut(value, "=")
		return func(img image.Image) bool {
			got, ok := img.Config.Config.Labels[key]
			return ok && (!exact || got == want)
		}, nil
	case "reference":
		if _, err := path.Match(value, ""); err != nil {
			return nil, err
		}
		return func(img image.Image) bool {
			return slices.ContainsFunc(img.Tags, func(tag string) bool { return called(tag, value) })
		}, nil
	}
	return nil, errors.New("want reference, before, since, until, dangling, pinned or label")
}

// called says whether a name fits a pattern: with or without its tag, and from its
// end, so that nobody must say docker.io/library/.
func called(name, pattern string) bool {
	repository, _ := splitTag(name)
	for _, whole := range []string{name, repository} {
		for rest := whole; ; {
			if ok, _ := path.Match(pattern, rest); ok { // the pattern has been checked
				return true
			}
			_, after, more := strings.Cut(rest, "/")
			if !more {
				break
			}
			rest = after
		}
	}
	return false
}
