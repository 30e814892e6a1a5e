package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
)

func exportCommand(s *Settings) *cobra.Command {
	namespace, file := "", ""
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write all files of a container as a tar archive", Args: cobra.ExactArgs(1),
		Long: `Write all files of a container on this machine as a tar archive, whether it runs or not:
those of its image with all that it has changed, and without its volumes.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			root, err := s.leftOf(pod, false)
			if err != nil {
				return err
			}
			defer root.Close()
			c := copying{source: place{root: root, path: "/."}}
			if file == "" && terminal(cmd.OutOrStdout()) {
				return errors.New("an archive would fill your terminal: send it somewhere, or say -o FILE")
			}
			// For its owner alone, as docker's: there is anybody's /etc/shadow in it.
			return writeTo(cmp.Or(file, "-"), cmd.OutOrStdout(), 0o600, func(w io.Writer) error { return c.pack(cmd.Context(), w, ".") })
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "file to write (default: standard output)")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}

func importCommand(s *Settings) *cobra.Command {
	var given build.Given
	cmd := &cobra.Command{
		Use: "import FILE|URL|- [REPOSITORY[:TAG]]", Short: "Make an image of a tar archive of files", Args: cobra.RangeArgs(1, 2),
		Long: `Make an image of a tar archive of files, compressed or not, such as sampan export writes;
sampan load takes what sampan save has written.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				given.Ref = args[1]
			}
			if err := checkChanges(given.Changes); err != nil {
				return err
			}
			given.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
			if given.Message == "" {
				given.Message = "Imported from " + args[0]
			}
			store, err := s.images()
			if err != nil {
				return err
			}
			archive, err := archiveOf(cmd, args[0])
			if err != nil {
				return err
			}
			defer archive.Close()
			img, err := build.FromArchive(cmd.Context(), store, archive, given)
			if err != nil {
				return fmt.Errorf("import %s: %w", args[0], err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), img.ID)
			return err
		},
	}
	cmd.Flags().StringVarP(&given.Message, "message", "m", "", "a word about it, for sampan history")
	cmd.Flags().StringVar(&given.Platform, "platform", "", "what its programs are for, such as linux/arm64 (default: this machine)")
	changeFlag(cmd, &given.Changes)
	return cmd
}

// archiveOf opens a file, standard input or a URL.
func archiveOf(cmd *cobra.Command, from string) (io.ReadCloser, error) {
	switch {
	case from == "-":
		return io.NopCloser(cmd.InOrStdin()), nil
	case !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://"):
		return os.Open(from)
	}
	body, err := build.Download(cmd.Context(), from)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", from, err)
	}
	return body, nil
}
