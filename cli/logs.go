package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func logsCommand(s *Settings) *cobra.Command {
	l, tail, since, until, namespace := logQuery{}, "all", "", "", ""
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what a container has printed", Args: cobra.ExactArgs(1),
		Long: `Show what a container has printed: its standard output and error each to its own,
or with --tail both to standard output. It begins with what it has printed before it was
started anew, as far as that is kept on this machine.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if _, numeric := strconv.Atoi(namespace); numeric == nil { // -n is docker's word for --tail, and kubectl's for a namespace
				tail, namespace = namespace, ""
			}
			if l.tail, err = parseTail(tail); err != nil {
				return err
			}
			if l.since, err = parseSince("since", since, time.Now()); err != nil {
				return err
			}
			if l.until, err = parseSince("until", until, time.Now()); err != nil {
				return err
			}
			server, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if l.follow && !l.until.IsZero() { // nothing may come that is later
				to, cancel := context.WithDeadline(ctx, l.until)
				defer cancel()
				ctx = to
			}
			if err := s.tellPast(ctx, server, pod, l, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil && ctx.Err() == nil {
				return err
			}
			err = server.logs(ctx, at(pod), l, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
				return nil // Ctrl-C ends --follow, and so does --until
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&l.follow, "follow", "f", false, "go on until the container ends")
	flags.StringVar(&tail, "tail", "all", "how many of the last lines")
	flags.StringVar(&since, "since", "", "only what is newer than 10m, or than a time")
	flags.StringVar(&until, "until", "", "only what is older than 10m, or than a time")
	flags.BoolVarP(&l.timestamps, "timestamps", "t", false, "begin each line with its time")
	flags.StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig); a number is --tail")
	flags.Bool("details", false, "nothing: there are none")
	hide(flags, "details")
	return cmd
}

// parseTail reads "all" or a number; below zero is all.
func parseTail(text string) (int64, error) {
	if text == "all" || text == "-1" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("--tail %q: want a number, or all", text)
	}
	return n, nil
}
