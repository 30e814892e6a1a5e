package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/node/build"
)

// idle are docker build's flags that have meant something to its first builder
// alone, and what is so without them. BuildKit takes them too, and does nothing.
//
//nolint:gochecknoglobals // a constant table
var idle = map[string]string{
	"rm":       "builds leave no containers",
	"force-rm": "builds leave no containers",
	"compress": "the context is not sent anywhere",
	"squash":   "an image of one layer is made by FROM scratch and COPY --from=STAGE / /",
	"debug":    "what a build does is told by --progress=plain or rawjson",
}

// idleWords are those that want a value.
//
//nolint:gochecknoglobals // as above
var idleWords = map[string]string{
	"builder":       "there is one builder",
	"cgroup-parent": "RUNs are in cgroups of this machine's builds",
	"cpu-period":    sharesMachine, "cpu-quota": sharesMachine, "cpu-shares": sharesMachine,
	"cpuset-cpus": sharesMachine, "cpuset-mems": sharesMachine,
	"isolation": "it is about Windows",
	"memory":    sharesMachine, "memory-swap": sharesMachine,
	"security-opt": "RUN --security=insecure, with --allow, is what there is",
}

// idleLetters are their short forms.
//
//nolint:gochecknoglobals // as above
var idleLetters = map[string]string{"cpu-shares": "c", "debug": "D", "memory": "m"}

func idleFlags(cmd *cobra.Command) {
	for name, why := range idle {
		cmd.Flags().BoolP(name, idleLetters[name], false, "does nothing: "+why)
		hide(cmd.Flags(), name)
	}
	for name, why := range idleWords {
		cmd.Flags().StringArrayP(name, idleLetters[name], nil, "does nothing: "+why)
		hide(cmd.Flags(), name)
	}
	foreignFlags(cmd, noTrust, foreign{name: "policy", word: true, why: "builds heed no policies; FROM name@sha256:... and ADD --checksum say what may go in"})
}

// sayIdle says of flags that were given that they do nothing.
func sayIdle(cmd *cobra.Command) {
	for _, all := range []map[string]string{idle, idleWords} {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if cmd.Flags().Changed(name) {
				fmt.Fprintf(cmd.ErrOrStderr(), "sampan: --%s does nothing: %s\n", name, all[name])
			}
		}
	}
}

// errNoScanner is why nobody else lists an image's packages.
var errNoScanner = errors.New("there is one scanner, in here, of dpkg's, apk's and Go's packages: run another over the image, such as syft")

// attestations reads --provenance, --sbom and --attest.
func attestations(opts *build.Options, f buildFlags) (err error) {
	if opts.Provenance, err = provenance(f.provenance); err != nil {
		return err
	}
	if opts.SBOM, err = strconv.ParseBool(f.sbom); err != nil {
		return fmt.Errorf("--sbom=%s: want true or false: %w", f.sbom, errNoScanner)
	}
	for _, text := range f.attests {
		fields, err := fieldsOf(text, "type", "mode", "disabled", "version", "reproducible", "inline-only", "generator")
		if err != nil {
			return fmt.Errorf("--attest %q: %w", text, err)
		}
		disabled, _ := strconv.ParseBool(fields["disabled"]) // nothing is false
		switch fields["type"] {
		case "provenance":
			mode := fields["mode"]
			if mode != "" && mode != "min" && mode != "max" {
				return fmt.Errorf("--attest %q: want mode=min or max", text)
			}
			opts.Provenance = !disabled
		case "sbom":
			if fields["generator"] != "" && !disabled {
				return fmt.Errorf("--attest %q: %w", text, errNoScanner)
			}
			opts.SBOM = !disabled
		default:
			return fmt.Errorf("--attest %q: want type=provenance or sbom", text)
		}
	}
	return nil
}

// ulimitNames are those that docker has.
//
//nolint:gochecknoglobals // a constant list
var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

// buildLimits reads --ulimit and --shm-size.
func buildLimits(opts *build.Options, f buildFlags) error {
	for _, text := range f.ulimits {
		u, err := ulimit(text)
		if err != nil {
			return fmt.Errorf("--ulimit %q: %w", text, err)
		}
		opts.Ulimits = append(opts.Ulimits, u)
	}
	if f.shmSize == "" {
		return nil
	}
	size, err := bytesOf(f.shmSize)
	if err != nil {
		return fmt.Errorf("--shm-size %q: %w", f.shmSize, err)
	}
	opts.ShmSize = size.Value()
	return nil
}

// ulimit reads NAME=SOFT[:HARD], where -1 is no limit.
func ulimit(text string) (u build.Ulimit, err error) {
	name, numbers, _ := strings.Cut(text, "=")
	if !slices.Contains(ulimitNames, name) {
		return u, fmt.Errorf("want NAME=SOFT[:HARD], where NAME is one of %s", strings.Join(ulimitNames, ", "))
	}
	soft, hard, two := strings.Cut(numbers, ":")
	if !two {
		hard = soft
	}
	u.Name = name
	for at, number := range map[*uint64]string{&u.Soft: soft, &u.Hard: hard} {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < -1 {
			return u, fmt.Errorf("%q is no limit: want a number, or -1 for none", number)
		}
		*at = uint64(n) //nolint:gosec // -1 is no limit there too
	}
	if u.Soft > u.Hard {
		return u, fmt.Errorf("the soft limit %s is above the hard one %s", soft, hard)
	}
	return u, nil
}
