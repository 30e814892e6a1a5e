package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/image"
)

func inspectCommand(p Program, s *Settings) *cobra.Command {
	format, kind := "", ""
	cmd := &cobra.Command{
		Use: "inspect NAME...", Short: "Show all that is known of containers, images, networks or volumes, as JSON", Args: cobra.MinimumNArgs(1),
		Long: `Show all that is known of containers, images, networks or volumes, as a JSON list in
docker's words. A container has the metadata, spec and status of its pod beside those.

  sampan inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web
  sampan inspect -f '{{.status.phase}}' web
  sampan inspect -f '{{json .Config.Env}}' nginx`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"", "container", "image", "network", "volume"}, kind) {
				return fmt.Errorf("--type=%s: want container, image, network or volume", kind)
			}
			all := []any{}
			failed := each(args, func(name string) error {
				found, err := p.known(cmd.Context(), s, name, kind)
				if err == nil {
					all = append(all, found)
				}
				return err
			})
			if format == "" || format == "json" {
				return errors.Join(printJSON(cmd.OutOrStdout(), all), failed)
			}
			for _, found := range all {
				if err := inspectWith(cmd.OutOrStdout(), format, found); err != nil {
					return err
				}
			}
			return failed
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a template over what is shown, such as {{.status.podIP}} or {{json .Config}}")
	cmd.Flags().StringVar(&kind, "type", "", "container, image, network or volume, where several have the name")
	cmd.Flags().BoolP("size", "s", false, "nothing: the size of images is always shown")
	return cmd
}

// known is what has a name, as inspect shows it: as in docker, the first of a container of
// sampan run, an image, a network and a volume, or the one of the kind that is asked for.
func (p Program) known(ctx context.Context, s *Settings, name, kind string) (any, error) {
	server, unknown := s.connect() // images and volumes are there without a cluster
	if kind == "" || kind == "container" {
		found, err := any(nil), unknown
		if err == nil {
			found, err = p.knownContainer(ctx, s, server, name)
		}
		if err == nil || kind != "" {
			return found, err
		}
		unknown = err
	}
	if kind == "" || kind == "image" {
		// Images are root's alone; a container may be looked at by whoever may see it.
		found, err := s.knownImage(name)
		if err == nil || kind != "" {
			return found, err
		}
		if !errors.Is(err, image.ErrNotFound) {
			return nil, errors.Join(err, unknown)
		}
	}
	if server != nil && (kind == "" || kind == "network") {
		if found, err := server.network(ctx, server.namespace, name); err == nil || kind != "" {
			return found, err
		}
	}
	if found, err := s.there(name); (err == nil || kind != "") && kind != "network" {
		return found, err
	}
	if kind == "network" {
		return nil, unknown
	}
	if m := (*missing)(nil); unknown != nil && !errors.As(unknown, &m) {
		return nil, fmt.Errorf("no such object: %q is no image or volume, and %w", name, unknown)
	}
	return nil, fmt.Errorf("no such object: %q is no container, image, network or volume", name)
}

// knownContainer is a container of sampan run, and how its checks went.
func (p Program) knownContainer(ctx context.Context, s *Settings, server *server, name string) (any, error) {
	pod, err := server.own(ctx, "", name)
	if err != nil {
		return nil, err
	}
	v := p.shown(ctx, s, pod)
	if v.State.Health != nil {
		v.State.Health.Log, err = server.checks(ctx, pod)
		v.State.Health.count()
	}
	return v, err
}

func (s *Settings) knownImage(name string) (any, error) {
	store, err := s.images()
	if err != nil {
		return nil, err
	}
	img, err := store.Get(name)
	if err != nil {
		return nil, err
	}
	return shownImage(store, img)
}

// imageView is an image in docker's words.
type imageView struct {
	ID                    string `json:"Id"`
	RepoTags, RepoDigests []string
	Created               time.Time
	Author                string `json:",omitempty"`
	Config                any
	Architecture          string
	Variant               string `json:",omitempty"`
	Os                    string
	Size                  int64
	RootFS                struct {
		Type   string
		Layers []string
	}
	// Manifest is the digest by which a registry knows it; Pinned, that it stays though
	// nobody uses it.
	Manifest string
	Pinned   bool `json:",omitempty"`
}

// shownImage is an image as inspect shows it.
func shownImage(store *image.Store, img image.Image) (any, error) {
	raw, err := store.RawConfig(img)
	if err != nil {
		return nil, err
	}
	var whole struct {
		Config map[string]any `json:"config"`
	}
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, fmt.Errorf("config of image %s: %w", img.ID, err)
	}
	v := imageView{
		ID: img.ID, RepoTags: append([]string{}, img.Tags...), RepoDigests: append([]string{}, img.Digests...), Created: img.Created,
		Author: img.Config.Author, Config: whole.Config, Architecture: img.Config.Architecture, Variant: img.Config.Variant,
		Os: img.Config.OS, Size: img.Size, Manifest: img.Manifest.String(), Pinned: img.Pinned,
	}
	v.RootFS.Type, v.RootFS.Layers = "layers", []string{}
	for _, d := range img.Config.RootFS.DiffIDs {
		v.RootFS.Layers = append(v.RootFS.Layers, d.String())
	}
	return v, nil
}

// inspectWith fills a template with what is shown, by the names that are shown.
func inspectWith(out io.Writer, format string, found any) error {
	raw, err := json.Marshal(found)
	if err != nil {
		return err
	}
	var shown any
	numbers := json.NewDecoder(bytes.NewReader(raw))
	numbers.UseNumber() // sizes are whole
	if err := numbers.Decode(&shown); err != nil {
		return err
	}
	return templated(out, format, []any{shown})
}
