package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// dockerGroups are docker's words of two parts, for fingers that know them: image ls
// is images.
func dockerGroups(p Program, s *Settings) []*cobra.Command {
	group := func(use, short string, verbs ...*cobra.Command) *cobra.Command {
		g := &cobra.Command{Use: use, Short: short, Hidden: true, Args: cobra.ArbitraryArgs, RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no sampan %s %s: sampan %s --help shows what there is", use, args[0], use)
			}
			return cmd.Help()
		}}
		g.AddCommand(verbs...)
		return g
	}
	list := func(verb *cobra.Command, aliases ...string) *cobra.Command {
		verb.Use, verb.Aliases = "ls", aliases
		return verb
	}
	rm := rmiCommand(s)
	rm.Use = "rm IMAGE..."
	ofOne := inspectCommand(p, s)
	foreignFlags(ofOne, foreign{name: "platform", word: true, why: "sampan pull --platform fetches the image for one, which is shown then"})
	return []*cobra.Command{
		group("container", "Verbs for containers", list(psCommand(s), "list", "ps"), runCommand(p, s), createCommand(p, s), logsCommand(s), execCommand(s), attachCommand(p, s),
			stopCommand(p, s), rmCommand(s), startCommand(p, s), restartCommand(p, s), killCommand(p, s), pauseCommand(p, s), unpauseCommand(p, s), waitCommand(s), portCommand(s), cpCommand(p, s),
			topCommand(p, s), statsCommand(s), diffCommand(s), updateCommand(s), inspectCommand(p, s), commitCommand(p, s), exportCommand(s), containerPruneCommand(s), absentVerb("rename", "container rename", absent["rename"])),
		group("image", "Verbs for images", list(imagesCommand(s), "list"), rm, buildCommand(p, s), pullCommand(s), pushCommand(s), tagCommand(s), saveCommand(s),
			loadCommand(s), ofOne, historyCommand(s), importCommand(s), pruneCommand(s)),
		group("builder", "Verbs for builds", buildCommand(p, s), builderPruneCommand(s)),
		group("buildx", "Verbs for builds", append(buildxAbsent(), buildCommand(p, s), builderPruneCommand(s), group("imagetools", "Verbs for images in registries", imagetoolsCommands(s)...))...),
		group("manifest", "Verbs for manifests in registries", manifestCommands(s)...),
		group("system", "Verbs for all of it", systemPruneCommand(s), systemCheckCommand(s), roomCommand(s), infoCommand(p, s), eventsCommand(s)),
		group("network", "Verbs for networks", networkCommands(s)...),
		group("volume", "Verbs for volumes that have a name", volumeCommands(s)...),
	}
}

// absent are docker's verbs that sampan has not, and what does the same or why nothing
// does.
var absent = map[string]string{
	"checkpoint": noCheckpoint,
	"config":     "sampan kubectl create configmap",
	"node":       "sampan kubectl get nodes, and drain, cordon or label one",
	"plugin":     "volumes come from storage classes, networks from /etc/cni/net.d, devices from device plugins",
	"trust":      "there are no signatures of Notary; an image by its digest (NAME@sha256:...) is what it was",
	"compose":    composeInstead,
	"context":    "--kubeconfig, or KUBECONFIG, says which cluster is meant",
	"rename":     "a pod keeps its name: sampan commit OLD IMAGE, sampan rm -f OLD, and sampan run --name NEW IMAGE, which begins with what it has written",
	"search":     "registries have pages of their own to search them; sampan pull fetches an image by its name",
	"secret":     "sampan kubectl create secret",
	"service":    "sampan kubectl create deployment and expose",
	"stack":      "sampan kubectl apply -f",
	"swarm":      "sampan token create here, and sampan join on the other machine",
}

// composeInstead is what to do with a compose file.
const composeInstead = "what a compose file says is said by objects of Kubernetes, each service a Deployment and a Service: " +
	"kompose convert (kompose.io) writes them, and sampan kubectl apply -f FILE has them run; " +
	"or by hand: sampan network create NET, and for each service sampan build and sampan run -d --network NET --name SERVICE"

// oneBuilder is what to do instead of the verbs of buildx that are about builders.
const oneBuilder = "there is one builder, which is always there: sampan build"

// buildxAbsent are the verbs of buildx that are about several builders, or files of builds.
func buildxAbsent() []*cobra.Command {
	var list []*cobra.Command
	for name, instead := range map[string]string{
		"bake": "sampan build once for each target", "create": oneBuilder, "inspect": oneBuilder,
		"ls": oneBuilder, "rm": oneBuilder, "stop": oneBuilder, "use": oneBuilder, "version": "sampan version", "du": "sampan system df -v",
	} {
		list = append(list, absentVerb(name, "buildx "+name, instead))
	}
	return list
}

// absentVerbs answer who types them.
func absentVerbs() []*cobra.Command {
	var list []*cobra.Command
	for name, instead := range absent {
		list = append(list, absentVerb(name, name, instead))
	}
	return list
}

// absentVerb says what to do instead of a verb.
func absentVerb(use, whole, instead string) *cobra.Command {
	return &cobra.Command{
		Use: use, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("there is no sampan " + whole + ": " + instead)
		},
	}
}
