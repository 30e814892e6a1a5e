package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
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
	if err := s.complete(); err != nil {
		return err
	}
	env := os.Environ()
	if os.Getenv("KUBECONFIG") == "" {
		env = append(env, "KUBECONFIG="+s.AdminKubeconfig())
	}
	fd, err := unpacked(program)
	if err != nil {
		return fmt.Errorf("unpack kubectl: %w", err)
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), append([]string{"kubectl"}, args...), env)
}

// unpacked decompresses a program into memory and returns its descriptor.
func unpacked(compressed []byte) (int, error) {
	fd, err := unix.MemfdCreate("kubectl", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	f := os.NewFile(uintptr(fd), "kubectl")
	z, err := zstd.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return -1, err
	}
	defer z.Close()
	if _, err := io.Copy(f, z); err != nil {
		return -1, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return -1, err
	}
	return fd, nil
}
