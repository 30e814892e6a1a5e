package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// volumeView is a named volume in docker's words: a directory of this machine.
type volumeView struct {
	CreatedAt                       time.Time
	Driver, Mountpoint, Name, Scope string
	Labels                          labelled
}

// volumeCommands are the verbs for volumes that have a name.
func volumeCommands(s *Settings) []*cobra.Command {
	return []*cobra.Command{volumeCreateCommand(s), volumeListCommand(s), volumeInspectCommand(s), volumeRemoveCommand(s), volumePruneCommand(s)}
}

func volumeCreateCommand(s *Settings) *cobra.Command {
	driver, labels := "", []string{}
	cmd := &cobra.Command{
		Use: "create [NAME...]", Short: "Make volumes, which run -v NAME:PATH makes too",
		Long: `Make volumes, or one whose name is made up. One that is there stays as it is, with the labels
that it has.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if driver != "local" {
				return fmt.Errorf("--driver=%s: %s", driver, noWord["volume-driver"])
			}
			with, err := labelsOf(labels)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{anonymousName()}
			}
			return each(args, func(name string) error {
				if err := s.makeVolume(name, with); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&driver, "driver", "d", "local", "local: a directory of this machine")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "NAME[=VALUE]: a label, for ls and prune")
	foreignFlags(cmd, foreign{name: "opt", letter: "o", word: true, why: "a volume is a directory; another file system is mounted by this machine and given by run -v PATH:PATH, or a claim's: sampan kubectl apply of a PersistentVolume"})
	return cmd
}

// volume is the directory of a named volume, whether or not it is there.
func (s Settings) volume(name string) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("volumes belong to root: run this with sudo")
	}
	if !volumeName(name) {
		return "", fmt.Errorf("%q is not the name of a volume", name)
	}
	return filepath.Join(s.volumeDir(), name), nil
}

// volumeName says whether a name may be that of a volume.
func volumeName(name string) bool {
	return len(validation.IsDNS1123Subdomain(strings.ToLower(strings.ReplaceAll(name, "_", "-")))) == 0
}

// there is a volume that there is.
func (s Settings) there(name string) (volumeView, error) {
	dir, err := s.volume(name)
	if err != nil {
		return volumeView{}, err
	}
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return volumeView{}, fmt.Errorf("volume %q is not found: sampan volume ls lists those that there are", name)
	}
	if err != nil {
		return volumeView{}, err
	}
	labels, err := readLabels(s.volumeLabels(name))
	return volumeView{CreatedAt: info.ModTime().UTC(), Driver: "local", Mountpoint: dir, Name: name, Scope: "local", Labels: labels}, err
}

// volumes are all that there are.
func (s Settings) volumes() ([]volumeView, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("volumes belong to root: run this with sudo")
	}
	entries, err := os.ReadDir(s.volumeDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []volumeView
	for _, e := range entries {
		if !e.IsDir() || !volumeName(e.Name()) {
			continue
		}
		if v, err := s.there(e.Name()); err == nil { // else it has just gone
			all = append(all, v)
		}
	}
	return all, nil
}

// usersOf says which containers mount a directory below that of volumes, by the volume's name.
func (s *Settings) usersOf(ctx context.Context) (map[string][]string, error) {
	server, err := s.connect()
	if err != nil {
		return nil, err
	}
	pods, err := server.pods(ctx)
	if err != nil {
		return nil, err
	}
	return volumeUsers(pods, s.volumeDir()), nil
}

func volumeUsers(pods []*corev1.Pod, dir string) map[string][]string {
	users := map[string][]string{}
	for _, p := range pods {
		for _, v := range p.Spec.Volumes {
			if v.HostPath == nil {
				continue
			}
			rest, below := strings.CutPrefix(path.Clean(v.HostPath.Path), path.Clean(dir)+"/")
			if name, _, _ := strings.Cut(rest, "/"); below && !slices.Contains(users[name], p.Name) {
				users[name] = append(users[name], p.Name)
			}
		}
	}
	return users
}

func volumeListCommand(s *Settings) *cobra.Command {
	var l listing
	filters := []string{}
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the volumes that have a name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := s.volumes()
			if err != nil {
				return err
			}
			if all, err = s.filterVolumes(cmd.Context(), all, filters); err != nil {
				return err
			}
			return show(l, cmd.OutOrStdout(), all, []string{"DRIVER", "VOLUME NAME"}, func(v volumeView) []string { return []string{v.Driver, v.Name} })
		},
	}
	l.flags(cmd, "{{.Name}} {{.Mountpoint}}")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, volumeFilters)
	return cmd
}

// volumeFilters is what --filter of volume ls may say.
const volumeFilters = "name=TEXT, label=NAME[=VALUE], driver=local or dangling=true|false"

// filterVolumes reads --filter.
func (s *Settings) filterVolumes(ctx context.Context, all []volumeView, filters []string) ([]volumeView, error) {
	for _, text := range filters {
		switch name, value, _ := strings.Cut(text, "="); {
		case name == "name":
			all = slices.DeleteFunc(all, func(v volumeView) bool { return !strings.Contains(v.Name, value) })
		case name == "driver":
			all = slices.DeleteFunc(all, func(v volumeView) bool { return v.Driver != value })
		case name == "label":
			all = slices.DeleteFunc(all, func(v volumeView) bool { return !hasLabel(v.Labels, value) })
		case name == "dangling" && (value == "true" || value == "false"):
			users, err := s.usersOf(ctx)
			if err != nil {
				return nil, err
			}
			all = slices.DeleteFunc(all, func(v volumeView) bool { return (len(users[v.Name]) == 0) != (value == "true") })
		default:
			return nil, fmt.Errorf("--filter %q: want %s", text, volumeFilters)
		}
	}
	return all, nil
}

func volumeInspectCommand(s *Settings) *cobra.Command {
	return inspecting("Show where volumes are, as JSON", func(_ *cobra.Command, name string) (volumeView, error) { return s.there(name) })
}

func volumeRemoveCommand(s *Settings) *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "rm NAME...", Aliases: []string{"remove"}, Short: "Remove volumes, and what is in them", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			users, err := s.usersOf(cmd.Context())
			if err != nil {
				return err
			}
			return each(args, func(name string) error {
				v, err := s.there(name)
				if err != nil {
					if _, e := s.volume(name); force && e == nil && s.dropVolume(name) == nil {
						return nil
					}
					return err
				}
				if by := users[name]; len(by) > 0 {
					return fmt.Errorf("volume %q is of %s: sampan rm first", name, strings.Join(by, ", "))
				}
				if err := s.dropVolume(v.Name); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "it is no error when there is none")
	return cmd
}

func volumePruneCommand(s *Settings) *cobra.Command {
	all, filters := false, []string{}
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove volumes that no container has", Args: cobra.NoArgs,
		Long: `Remove the volumes that no container has, not even one that has ended: those that nobody
has given a name, or with --all every one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := pruneFilters(filters, time.Now(), append(slices.Clone(byLabel), "all")...)
			if err != nil {
				return err
			}
			return s.pruneVolumes(cmd, all || f.all, f)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "those that have a name, too")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "only those that fit: "+alternatives(byLabel)+"; all=true is --all")
	cmd.Flags().BoolP("force", "f", false, "nothing: nobody is asked")
	hide(cmd.Flags(), "force")
	return cmd
}

// pruneVolumes removes the volumes that no container has and that fit.
func (s *Settings) pruneVolumes(cmd *cobra.Command, all bool, f pruneFilter) error {
	users, err := s.usersOf(cmd.Context())
	if err != nil {
		return err
	}
	volumes, err := s.volumes()
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if len(users[v.Name]) > 0 || !all && !anonymous(v.Name) || !f.fits(v.CreatedAt, v.Labels) {
			continue
		}
		if err := s.dropVolume(v.Name); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), v.Name)
	}
	return nil
}
