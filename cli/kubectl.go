package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/sealed"
)

func kubectlCommand(p Program, s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl [ARGS]", Short: "Run the kubectl that sampan carries", DisableFlagParsing: true,
		Long: `Run upstream's kubectl. It uses this machine's cluster unless KUBECONFIG or
--kubeconfig says otherwise.`,
		RunE: func(_ *cobra.Command, args []string) error { return kubectl(p, s, args) },
	}
}

// kubectl replaces this process by kubectl, from a sealed file in memory.
func kubectl(p Program, s *Settings, args []string) error {
	program := p.Kubectl()
	if len(program) == 0 {
		return errors.New("this sampan was built without kubectl: build it with make")
	}
	args, err := s.take(args)
	if err != nil {
		return err
	}
	if err := s.complete(); err != nil {
		return err
	}
	env := os.Environ()
	config := os.Getenv("KUBECONFIG")
	if config == "" {
		config = s.AdminKubeconfig()
		env = append(env, "KUBECONFIG="+config)
	}
	if asksServer(args) && !anyExists(filepath.SplitList(config)) {
		return fmt.Errorf("no cluster is known here: %s does not exist; start one with sampan up", config)
	}
	f, err := unpacked(program)
	if err != nil {
		return fmt.Errorf("unpack kubectl: %w", err)
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), append([]string{"kubectl"}, args...), env)
}

// take reads those of sampan's own flags that stand before kubectl's words: cobra
// leaves them there, because it must not read kubectl's.
func (s *Settings) take(args []string) ([]string, error) {
	own := map[string]*string{"--data-dir": &s.DataDir, "--run-dir": &s.RunDir}
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		setting, ok := own[name]
		if !ok {
			return args, nil
		}
		if !joined {
			if len(args) == 1 {
				return nil, fmt.Errorf("flag needs an argument: %s", name)
			}
			value, args = args[1], args[1:]
		}
		*setting, args = value, args[1:]
	}
	return args, nil
}

// asksServer says whether kubectl will look for a server in the kubeconfig.
func asksServer(args []string) bool {
	verb := ""
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		if slices.Contains([]string{"--kubeconfig", "--server", "-s", "-h", "--help", "--client"}, name) {
			return false
		}
		if verb == "" && !strings.HasPrefix(a, "-") {
			verb = a
		}
	}
	return !slices.Contains([]string{"", "help", "config", "completion", "__complete", "kustomize", "options", "plugin"}, verb)
}

func anyExists(files []string) bool {
	return slices.ContainsFunc(files, func(f string) bool {
		_, err := os.Stat(f)
		return err == nil
	})
}

// unpacked decompresses a program into memory.
func unpacked(compressed []byte) (*os.File, error) {
	z, err := zstd.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return sealed.Program("kubectl", func(w io.Writer) error {
		_, err := io.Copy(w, z)
		return err
	})
}
