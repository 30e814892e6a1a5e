package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/image/remote"
)

// maxPassword bounds what login reads.
const maxPassword = 64 << 10

// credentialFile is where login keeps credentials: $REGISTRY_AUTH_FILE or
// $DOCKER_CONFIG when set, else Docker's place in the person's home.
func credentialFile() (remote.CredentialFile, error) {
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		return remote.CredentialFile{Path: file}, nil
	}
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return remote.CredentialFile{}, err
		}
		dir = filepath.Join(home, ".docker")
	}
	return remote.CredentialFile{Path: filepath.Join(dir, "config.json")}, nil
}

// transfers are the options of pulls and pushes by hand: with the credentials
// that login has kept.
func (s Settings) transfers() image.TransferOptions {
	return image.TransferOptions{Credentials: func(host string) (image.Auth, error) {
		file, err := credentialFile()
		if err != nil {
			return image.Auth{}, nil //nolint:nilerr // nobody's home: no credentials
		}
		return file.Get(host)
	}}
}

// registryName is a registry as credentials know it.
func registryName(args []string) string {
	if len(args) == 0 || args[0] == "index.docker.io" || args[0] == "registry-1.docker.io" {
		return "docker.io"
	}
	name := strings.TrimPrefix(strings.TrimPrefix(args[0], "https://"), "http://")
	return strings.TrimSuffix(name, "/")
}

func loginCommand() *cobra.Command {
	user, password, stdin := "", "", false
	cmd := &cobra.Command{
		Use: "login [-u USER] [REGISTRY]", Short: "Keep the credentials of a registry", Args: cobra.MaximumNArgs(1),
		Long: `Try credentials and keep them where docker keeps its own (~/.docker/config.json,
$DOCKER_CONFIG or $REGISTRY_AUTH_FILE), readable by you alone.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			registry := registryName(args)
			if password != "" && stdin {
				return errors.New("--password and --password-stdin exclude each other")
			}
			c := image.Auth{Username: user, Password: password}
			if err := ask(cmd, &c, stdin); err != nil {
				return err
			}
			client := remote.New(remote.Config{Credentials: func(string) (remote.Credentials, error) { return c, nil }})
			err := client.Ping(cmd.Context(), registry)
			if errors.Is(err, remote.ErrDenied) {
				return fmt.Errorf("login to %s as %s: %w: %w", registry, c.Username, remote.ErrDenied, err)
			}
			if err != nil {
				return fmt.Errorf("login to %s: %w", registry, err)
			}
			file, err := credentialFile()
			if err != nil {
				return err
			}
			if err := file.Set(registry, c); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "logged in to %s as %s; kept in %s\n", registry, c.Username, file.Path)
			return err
		},
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "user name")
	cmd.Flags().StringVarP(&password, "password", "p", "", "password; others can see it: prefer --password-stdin")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// ask completes credentials from standard input.
func ask(cmd *cobra.Command, c *image.Auth, stdin bool) error {
	if stdin {
		raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxPassword))
		if err != nil {
			return err
		}
		c.Password = strings.TrimRight(string(raw), "\r\n")
	}
	if c.Username != "" && c.Password != "" {
		return nil
	}
	if stdin || !term.IsTerminal(int(os.Stdin.Fd())) { //nolint:gosec // a descriptor is small
		return errors.New("user and password are needed: -u USER --password-stdin")
	}
	if c.Username == "" {
		fmt.Fprint(cmd.ErrOrStderr(), "Username: ")
		line, err := bufio.NewReader(io.LimitReader(os.Stdin, maxPassword)).ReadString('\n')
		if err != nil {
			return err
		}
		c.Username = strings.TrimSpace(line)
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Password: ")
	raw, err := term.ReadPassword(int(os.Stdin.Fd())) //nolint:gosec // as above
	fmt.Fprintln(cmd.ErrOrStderr())
	c.Password = string(raw)
	return err
}

func logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout [REGISTRY]", Short: "Forget the credentials of a registry", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := credentialFile()
			if err != nil {
				return err
			}
			registry := registryName(args)
			had, err := file.Delete(registry)
			if err != nil {
				return err
			}
			text := "no credentials of %s in %s\n"
			if had {
				text = "forgot the credentials of %s in %s\n"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), text, registry, file.Path)
			return err
		},
	}
}
