package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rotationPath is where the API server rotates the key of the Secrets.
const rotationPath = "/sampan/secrets/rotation"

// rotation is one line of what the API server tells of it.
type rotation struct {
	State       string
	Keys        []string
	Total, Done int
	Error       string
}

func secretsCommand(s *Settings) *cobra.Command {
	parent := &cobra.Command{Use: "secrets", Short: "Look after the encryption of Secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, verb := range []struct{ use, method, short, long string }{
		{"rotate", http.MethodPost, "Seal all Secrets with a new key",
			`Make a new key, write every Secret again with it, and forget the old key once
nothing is sealed with it any more. It may be interrupted: the server goes on.
Copies of the store from before cannot be read without the old key.`},
		{"status", http.MethodGet, "Tell which keys seal the Secrets, and how far a rotation is", ""},
	} {
		parent.AddCommand(&cobra.Command{Use: verb.use, Short: verb.short, Long: verb.long, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				server, err := s.connect()
				if err != nil {
					return err
				}
				return server.followRotation(cmd.Context(), verb.method, cmd.OutOrStdout())
			}})
	}
	return parent
}

// followRotation begins a rotation or only asks, and repeats what is told until
// the end.
func (s *server) followRotation(ctx context.Context, method string, out io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, method, s.records.URL+rotationPath, nil)
	if err != nil {
		return err
	}
	answer, err := s.records.Client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	if answer.StatusCode != http.StatusOK {
		var status metav1.Status
		if lines.Decode(&status) != nil || status.Message == "" {
			status.Message = answer.Status
		}
		return fmt.Errorf("the API server refuses: %s", status.Message)
	}
	for {
		var now rotation
		if err := lines.Decode(&now); errors.Is(err, io.EOF) {
			return errors.New("the API server has ended; it goes on with the rotation when it starts again")
		} else if err != nil {
			return fmt.Errorf("read the API server's answer: %w", err)
		}
		switch now.State {
		case "running":
			fmt.Fprintf(out, "%d of %d secrets\n", now.Done, now.Total)
		case "failed":
			return fmt.Errorf("the rotation has failed: %s; all keys are kept (%s), and the next rotation goes on", now.Error, strings.Join(now.Keys, ", "))
		case "done":
			fmt.Fprintf(out, "all %d secrets are sealed with %s\n", now.Total, now.Keys[0])
			return nil
		default:
			fmt.Fprintf(out, "secrets are sealed with %s\n", strings.Join(now.Keys, ", formerly "))
			return nil
		}
	}
}
