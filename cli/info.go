package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
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
			v.ServerVersion = p.number()
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
