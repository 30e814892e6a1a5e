package cli

import (
	"math/rand/v2"
)

// What made-up names are made of: nothing that could hurt somebody.
//
//nolint:gochecknoglobals // constant lists
var (
	nameAdjectives = []string{
		"amber", "bold", "brisk", "calm", "clear", "copper", "coral", "deft", "early", "fair", "fleet", "gentle", "golden",
		"hardy", "jolly", "keen", "light", "lively", "lucky", "merry", "mild", "neat", "nimble", "noble", "patient", "plucky",
		"quick", "quiet", "ready", "silver", "spry", "steady", "sunny", "swift", "tidy", "true", "vivid", "warm", "wide", "wise",
	}
	nameNouns = []string{
		"albatross", "anchor", "barge", "bay", "beacon", "bosun", "breeze", "buoy", "canoe", "clipper", "compass", "cove", "current",
		"dory", "ferry", "gull", "harbour", "heron", "island", "jetty", "junk", "keel", "lagoon", "lantern", "mast", "oar", "otter",
		"paddle", "pelican", "pilot", "reef", "river", "rudder", "sail", "schooner", "sextant", "skiff", "tern", "tide", "wharf",
	}
)

// madeUpName is a name for a container of which the person has not said one.
func madeUpName() string {
	pick := func(words []string) string { return words[rand.IntN(len(words))] } //nolint:gosec // no secret
	return pick(nameAdjectives) + "-" + pick(nameNouns)
}
