package cli

import (
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/build"
)

func TestUlimits(t *testing.T) {
	none := ^uint64(0)
	for text, want := range map[string]build.Ulimit{
		"nofile=1024": {Name: "nofile", Soft: 1024, Hard: 1024}, "nproc=3:5": {Name: "nproc", Soft: 3, Hard: 5}, "core=0:-1": {Name: "core", Soft: 0, Hard: none}, "memlock=-1": {Name: "memlock", Soft: none, Hard: none},
	} {
		if got, err := ulimit(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"files=1": "NAME is one of", "nofile": `"" is no limit`, "nofile=x": `"x"`, "nofile=-2": `"-2"`, "nofile=5:3": "above", "nofile=-1:3": "above"} {
		if _, err := ulimit(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestAttestations(t *testing.T) {
	for name, c := range map[string]struct {
		f        buildFlags
		on, sbom bool
		fail     string
	}{
		"nothing":   {f: buildFlags{}},
		"on":        {f: buildFlags{attests: []string{"type=provenance,mode=max"}}, on: true},
		"off":       {f: buildFlags{provenance: "true", attests: []string{"type=provenance,disabled=true"}}},
		"no sbom":   {f: buildFlags{provenance: "true", sbom: "true", attests: []string{"type=sbom,disabled=true"}}, on: true},
		"sbom":      {f: buildFlags{sbom: "true"}, sbom: true},
		"attested":  {f: buildFlags{attests: []string{"type=sbom"}}, sbom: true},
		"generator": {f: buildFlags{sbom: "generator=docker/scout-sbom-indexer"}, fail: "there is one scanner, in here"},
		"another":   {f: buildFlags{attests: []string{"type=sbom,generator=image"}}, fail: "there is one scanner, in here"},
		"strange":   {f: buildFlags{attests: []string{"type=odd"}}, fail: "want type=provenance or sbom"},
		"mode":      {f: buildFlags{attests: []string{"type=provenance,mode=odd"}}, fail: "want mode=min or max"},
		"unknown":   {f: buildFlags{attests: []string{"type=provenance,odd=1"}}, fail: "is unknown"},
	} {
		if c.f.provenance == "" {
			c.f.provenance = "false"
		}
		if c.f.sbom == "" {
			c.f.sbom = "false"
		}
		var opts build.Options
		err := attestations(&opts, c.f)
		if c.fail == "" && (err != nil || opts.Provenance != c.on || opts.SBOM != c.sbom) || c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)) {
			t.Errorf("%s: provenance %v, SBOM %v, %v", name, opts.Provenance, opts.SBOM, err)
		}
	}
}
