package cli

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/pki"
)

// Bootstrap tokens, as upstream has them.
const (
	tokenPrefix  = "bootstrap-token-"
	tokenLetters = "0123456789abcdefghijklmnopqrstuvwxyz"
	idLetters    = 6
	secretLength = 16
	// joinGroup is whom the cluster lets ask for the certificates of nodes.
	joinGroup = "system:bootstrappers:sampan:nodes"
)

func tokenCommand(s *Settings) *cobra.Command {
	parent := &cobra.Command{Use: "token", Short: "Let machines join the cluster", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	life, description := 24*time.Hour, ""
	create := &cobra.Command{
		Use: "create", Short: "Make a token, and print the command by which a machine joins", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if life < time.Minute {
				return fmt.Errorf("--ttl %v: want a minute at least", life)
			}
			server, err := s.connect()
			if err != nil {
				return err
			}
			return server.createToken(cmd.Context(), cmd.OutOrStdout(), life, description)
		},
	}
	create.Flags().DurationVar(&life, "ttl", life, "how long machines may join with it")
	create.Flags().StringVar(&description, "description", "", "what it is for")
	parent.AddCommand(create,
		&cobra.Command{Use: "list", Short: "Show the tokens, without their secrets", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				server, err := s.connect()
				if err != nil {
					return err
				}
				return server.listTokens(cmd.Context(), cmd.OutOrStdout())
			}},
		&cobra.Command{Use: "delete ID", Short: "Let nobody join with a token any more", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				server, err := s.connect()
				if err != nil {
					return err
				}
				id, _, _ := strings.Cut(args[0], ".")
				if err := client.Secrets.Delete(cmd.Context(), server, metav1.NamespaceSystem, tokenPrefix+id, metav1.DeleteOptions{}); err != nil {
					return fmt.Errorf("delete token %q: %w", id, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "token %q deleted\n", id)
				return nil
			}},
	)
	return parent
}

// createToken makes a token and prints the command that uses it.
func (s *server) createToken(ctx context.Context, out io.Writer, life time.Duration, description string) error {
	at, err := s.reachable(ctx)
	if err != nil {
		return err
	}
	hash, err := s.authorityHash()
	if err != nil {
		return err
	}
	id, err := letters(idLetters)
	if err != nil {
		return err
	}
	secret, err := letters(secretLength)
	if err != nil {
		return err
	}
	_, err = client.Secrets.Create(ctx, s, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: tokenPrefix + id},
		Type:       corev1.SecretTypeBootstrapToken,
		Data: map[string][]byte{
			"token-id": []byte(id), "token-secret": []byte(secret), "usage-bootstrap-authentication": []byte("true"),
			"expiration":        []byte(time.Now().Add(life).UTC().Format(time.RFC3339)),
			"auth-extra-groups": []byte(joinGroup), "description": []byte(description),
		},
	})
	if err != nil {
		return fmt.Errorf("make a token: %w", err)
	}
	_, err = fmt.Fprintf(out, "sampan join %s --token %s.%s --ca-hash %s\n", at, id, secret, hash)
	return err
}

// reachable is where machines find the API server: the address that it says of
// itself, for the kubeconfig may well say 127.0.0.1.
func (s *server) reachable(ctx context.Context) (string, error) {
	slice, err := client.EndpointSlices.Get(ctx, s, metav1.NamespaceDefault, "kubernetes")
	if err == nil && len(slice.Endpoints) > 0 && len(slice.Endpoints[0].Addresses) > 0 && len(slice.Ports) > 0 && slice.Ports[0].Port != nil {
		return fmt.Sprintf("%s:%d", slice.Endpoints[0].Addresses[0], *slice.Ports[0].Port), nil
	}
	at, perr := url.Parse(s.records.URL)
	if perr != nil {
		return "", errors.Join(err, perr)
	}
	return at.Host, nil
}

// authorityHash is what a machine that joins knows the cluster by.
func (s *server) authorityHash() (string, error) {
	raw := s.rest.CAData
	if len(raw) == 0 && s.rest.CAFile != "" {
		var err error
		if raw, err = os.ReadFile(s.rest.CAFile); err != nil {
			return "", fmt.Errorf("the cluster's authority: %w", err)
		}
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return "", errors.New("the kubeconfig does not say by which authority the cluster's certificates are")
	}
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("the cluster's authority: %w", err)
	}
	return pki.Hash(authority), nil
}

func (s *server) listTokens(ctx context.Context, out io.Writer) error {
	all, _, err := client.Secrets.List(ctx, s, metav1.NamespaceSystem, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "ID\tEXPIRES\tDESCRIPTION")
	for _, t := range all {
		expires := string(t.Data["expiration"])
		if expires == "" {
			expires = "never"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", t.Data["token-id"], expires, t.Data["description"])
	}
	return table.Flush()
}

// letters are n random letters of a token.
func letters(n int) (string, error) {
	b := make([]byte, n)
	for i := range b {
		at, err := rand.Int(rand.Reader, big.NewInt(int64(len(tokenLetters))))
		if err != nil {
			return "", fmt.Errorf("random letters: %w", err)
		}
		b[i] = tokenLetters[at.Int64()]
	}
	return string(b), nil
}
