package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// roomView is a line of system df.
type roomView struct {
	Type               string
	TotalCount, Active int
	Size, Reclaimable  string
}

// Kinds of what takes room, in docker's words and order.
const (
	roomImages     = "Images"
	roomContainers = "Containers"
	roomVolumes    = "Local Volumes"
	roomBuilds     = "Build Cache"
)

// tenant is one thing that takes room: a line of system df -v.
type tenant struct {
	Type, Name, ID, Status, Size string
	// Links is how many containers have it.
	Links  int
	bytes  int64
	active bool
	// rest is of no image: damaged blobs.
	rest bool
}

func roomCommand(s *Settings) *cobra.Command {
	format, verbose := "", false
	cmd := &cobra.Command{
		Use: "df", Short: "Show what images, containers, volumes and builds take of the disk", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := s.room(cmd.Context())
			if err != nil {
				return err
			}
			rows := []any{}
			if verbose {
				for _, t := range all {
					rows = append(rows, t)
				}
			} else {
				for _, r := range roomOf(all) {
					rows = append(rows, r)
				}
			}
			switch {
			case format != "":
				return templated(cmd.OutOrStdout(), format, rows)
			case verbose:
				return printTenants(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "TYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE")
			for _, r := range roomOf(all) {
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", r.Type, r.TotalCount, r.Active, r.Size, r.Reclaimable)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "json, or a template such as {{.Type}} {{.Size}}; with -v of each thing: {{.Name}}")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "each image, container and volume")
	return cmd
}

// roomOf adds up what is in use and what is not, a line a kind.
func roomOf(all []tenant) []roomView {
	var rows []roomView
	for _, kind := range []string{roomImages, roomContainers, roomVolumes, roomBuilds} {
		row := roomView{Type: kind}
		var taken, free int64
		for _, t := range all {
			if t.Type != kind {
				continue
			}
			if !t.rest {
				row.TotalCount++
			}
			taken += t.bytes
			if t.active {
				row.Active++
			} else {
				free += t.bytes
			}
		}
		row.Size, row.Reclaimable = size(taken), size(free)
		rows = append(rows, row)
	}
	return rows
}

// printTenants writes a table a kind.
func printTenants(out io.Writer, all []tenant) error {
	tables := []struct {
		kind, title, columns string
		line                 func(t tenant) string
	}{
		{roomImages, "Images space usage:", "IMAGE\tIMAGE ID\tSIZE\tCONTAINERS", func(t tenant) string { return fmt.Sprintf("%s\t%s\t%s\t%d", t.Name, t.ID, t.Size, t.Links) }},
		{roomContainers, "Containers space usage:", "NAME\tCONTAINER ID\tSIZE\tSTATUS", func(t tenant) string { return fmt.Sprintf("%s\t%s\t%s\t%s", t.Name, t.ID, t.Size, t.Status) }},
		{roomVolumes, "Local Volumes space usage:", "VOLUME NAME\tLINKS\tSIZE", func(t tenant) string { return fmt.Sprintf("%s\t%d\t%s", t.Name, t.Links, t.Size) }},
		{roomBuilds, "Build cache usage:", "DIRECTORY\tSIZE", func(t tenant) string { return t.Name + "\t" + t.Size }},
	}
	for i, table := range tables {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprint(out, table.title, "\n\n")
		w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, table.columns)
		for _, t := range all {
			if t.Type == table.kind {
				fmt.Fprintln(w, table.line(t))
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// room measures, by walking directories.
func (s *Settings) room(ctx context.Context) ([]tenant, error) {
	store, err := s.images()
	if err != nil {
		return nil, err
	}
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	pods, err := server.pods(ctx)
	if err != nil {
		return nil, err
	}
	all, err := roomOfImages(store, pods)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		id, ok := snapshotOf(p)
		if !ok || p.Labels[runLabel] == "" {
			continue
		}
		if u, err := store.SnapshotUsage(id); err == nil { // else it is elsewhere
			all = append(all, tenant{Type: roomContainers, Name: p.Name, ID: shortID(idOf(p)), Status: containerStatus(p), Size: size(u.Bytes), bytes: u.Bytes, active: look(p).running})
		}
	}
	named, err := s.volumes()
	if err != nil {
		return nil, err
	}
	users := volumeUsers(pods, s.volumeDir())
	for _, v := range named {
		n := bytesBelow(v.Mountpoint)
		all = append(all, tenant{Type: roomVolumes, Name: v.Name, Size: size(n), Links: len(users[v.Name]), bytes: n, active: len(users[v.Name]) > 0})
	}
	dir := filepath.Join(s.DataDir, "build")
	if n := bytesBelow(dir); n > 0 {
		all = append(all, tenant{Type: roomBuilds, Name: dir, Size: size(n), bytes: n})
	}
	return all, nil
}

// roomOfImages are the images, and how many containers are made of each.
func roomOfImages(store *image.Store, pods []*corev1.Pod) ([]tenant, error) {
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	var all []tenant
	for _, img := range list {
		t := tenant{Type: roomImages, Name: noName, ID: shortID(img.ID), Size: size(img.Size), bytes: img.Size}
		if len(img.Tags) > 0 {
			t.Name = strings.Join(img.Tags, ", ")
		}
		for _, p := range pods {
			for _, c := range p.Status.ContainerStatuses {
				if by := map[string]bool{c.ImageID: true, c.Image: true}; by[img.ID] || inUse(img, by) {
					t.Links++
				}
			}
		}
		t.active = t.Links > 0
		all = append(all, t)
	}
	blobs, bytes, err := store.Remains()
	if blobs > 0 {
		all = append(all, tenant{Type: roomImages, Name: "<damaged>", Size: size(bytes), bytes: bytes, rest: true})
	}
	return all, err
}

func inUse(img image.Image, by map[string]bool) bool {
	for _, name := range append(append([]string{}, img.Tags...), img.Digests...) {
		if by[name] {
			return true
		}
	}
	return false
}

// bytesBelow adds up the files below a directory; what can't be read counts nothing.
func bytesBelow(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
