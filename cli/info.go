package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/image"
)

// infoView is what info tells, in docker's words.
type infoView struct {
	Containers, ContainersRunning, ContainersPaused, ContainersStopped int
	Images                                                             int
	ServerVersion, KubernetesVersion                                   string
	Driver, CgroupVersion                                              string
	KernelVersion, OperatingSystem, OSType, Architecture               string
	NCPU                                                               int64
	MemTotal                                                           int64
	Name, DockerRootDir                                                string
}

func infoCommand(p Program, s *Settings) *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use: "info", Short: "Show what this machine has: containers, images, kernel", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			v, err := server.info(cmd.Context(), s)
			if err != nil {
				return err
			}
			v.ServerVersion = p.Version
			switch format {
			case "json":
				return printJSON(cmd.OutOrStdout(), v)
			case "":
				format = "Containers: {{.Containers}}\n Running: {{.ContainersRunning}}\n Paused: {{.ContainersPaused}}\n Stopped: {{.ContainersStopped}}\n" +
					"Images: {{.Images}}\nServer Version: {{.ServerVersion}}\nKubernetes Version: {{.KubernetesVersion}}\nStorage Driver: {{.Driver}}\n" +
					"Cgroup Version: {{.CgroupVersion}}\nKernel Version: {{.KernelVersion}}\nOperating System: {{.OperatingSystem}}\nOSType: {{.OSType}}\n" +
					"Architecture: {{.Architecture}}\nCPUs: {{.NCPU}}\nTotal Memory: " + binary(v.MemTotal) + "\nName: {{.Name}}\nRoot Dir: {{.DockerRootDir}}"
			}
			return templated(cmd.OutOrStdout(), format, []any{v})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "json, or a template such as {{.NCPU}}")
	return cmd
}

// info asks the cluster, the image store and the kernel.
func (s *server) info(ctx context.Context, settings *Settings) (v infoView, err error) {
	v.Driver, v.DockerRootDir, v.CgroupVersion = "overlayfs", settings.DataDir, "1"
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		v.CgroupVersion = "2"
	}
	pods, _, err := client.Pods.List(ctx, s, "", metav1.ListOptions{LabelSelector: runLabel})
	if err != nil {
		return v, unanswered(err)
	}
	for _, p := range pods {
		v.Containers++
		switch stateOf(p) {
		case "running":
			v.ContainersRunning++
		case "paused":
			v.ContainersPaused++
		default:
			v.ContainersStopped++
		}
	}
	if node, err := s.localNode(ctx); err == nil && node != nil {
		v.ofNode(node)
	}
	store, err := settings.images()
	if err != nil {
		return v, nil // they are root's
	}
	images, err := store.List()
	v.Images = len(images)
	return v, err
}

func (v *infoView) ofNode(n *corev1.Node) {
	i := n.Status.NodeInfo
	v.Name, v.KernelVersion, v.OperatingSystem, v.OSType, v.Architecture = n.Name, i.KernelVersion, i.OSImage, i.OperatingSystem, i.Architecture
	v.KubernetesVersion, v.NCPU, v.MemTotal = i.KubeletVersion, n.Status.Capacity.Cpu().Value(), n.Status.Capacity.Memory().Value()
}

// roomView is a line of system df.
type roomView struct {
	Type               string
	TotalCount, Active int
	Size, Reclaimable  string
}

func roomCommand(s *Settings) *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use: "df", Short: "Show what images, containers, volumes and builds take of the disk", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows, err := s.room(cmd.Context())
			if err != nil {
				return err
			}
			if format != "" {
				all := []any{}
				for _, r := range rows {
					all = append(all, r)
				}
				return templated(cmd.OutOrStdout(), format, all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "TYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", r.Type, r.TotalCount, r.Active, r.Size, r.Reclaimable)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "a template such as {{.Type}} {{.Size}}")
	return cmd
}

// used adds up what is in use and what is not.
type used struct {
	total, active int
	all, free     int64
}

func (u *used) add(bytes int64, active bool) {
	u.total++
	u.all += bytes
	if active {
		u.active++
	} else {
		u.free += bytes
	}
}

func (u used) row(kind string) roomView {
	return roomView{Type: kind, TotalCount: u.total, Active: u.active, Size: size(u.all), Reclaimable: size(u.free)}
}

// room measures, by walking directories.
func (s *Settings) room(ctx context.Context) ([]roomView, error) {
	store, err := s.images()
	if err != nil {
		return nil, err
	}
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	pods, _, err := client.Pods.List(ctx, server, "", metav1.ListOptions{})
	if err != nil {
		return nil, unanswered(err)
	}
	var images, containers, volumes, builds used
	list, err := store.List()
	if err != nil {
		return nil, err
	}
	running := imagesIn(pods)
	for _, img := range list {
		images.add(img.Size, running[img.ID] || inUse(img, running))
	}
	for _, p := range pods {
		id, ok := snapshotOf(p)
		if !ok || p.Labels[runLabel] == "" {
			continue
		}
		if u, err := store.SnapshotUsage(id); err == nil { // else it is elsewhere
			containers.add(u.Bytes, look(p).running)
		}
	}
	named, err := s.volumes()
	if err != nil {
		return nil, err
	}
	users := volumeUsers(pods, s.volumeDir())
	for _, v := range named {
		volumes.add(bytesBelow(v.Mountpoint), len(users[v.Name]) > 0)
	}
	if n := bytesBelow(filepath.Join(s.DataDir, "build")); n > 0 {
		builds.add(n, false)
	}
	return []roomView{images.row("Images"), containers.row("Containers"), volumes.row("Local Volumes"), builds.row("Build Cache")}, nil
}

// imagesIn are the IDs and names of the images that pods are made of.
func imagesIn(pods []*corev1.Pod) map[string]bool {
	all := map[string]bool{}
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			all[c.ImageID], all[c.Image] = true, true
		}
	}
	return all
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
