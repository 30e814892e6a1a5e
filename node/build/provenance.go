package build

import (
	"encoding/json"
	"sort"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// predicateType is SLSA's provenance, version 1 (slsa.dev/spec/v1.0/provenance).
const predicateType = "https://slsa.dev/provenance/v1"

// buildType says how Provenance's parameters are to be read.
const buildType = "https://sampan.dev/dockerfile/v1"

// material is something from elsewhere that went into a build.
type material struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// Provenance is SLSA's predicate of one build: what was asked, what went in.
type Provenance struct {
	BuildDefinition struct {
		BuildType          string         `json:"buildType"`
		ExternalParameters map[string]any `json:"externalParameters"`
		InternalParameters map[string]any `json:"internalParameters"`
		// ResolvedDependencies are base images and downloads with their digests.
		ResolvedDependencies []material `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		Metadata struct {
			StartedOn  *time.Time `json:"startedOn,omitempty"`
			FinishedOn *time.Time `json:"finishedOn,omitempty"`
		} `json:"metadata"`
	} `json:"runDetails"`
}

// provenance is the build's own. Values of build arguments are in it, those of
// secrets never. With an epoch it has no times, so that it can be made again.
func (b *builder) provenance() Provenance {
	var p Provenance
	d := &p.BuildDefinition
	d.BuildType = buildType
	d.ExternalParameters = map[string]any{
		"dockerfile": map[string]string{"sha256": digest.FromBytes(b.file.raw).Encoded()},
		"platform":   b.platform.String(),
	}
	if b.opts.Target != "" {
		d.ExternalParameters["target"] = b.opts.Target
	}
	if len(b.opts.Args) > 0 {
		d.ExternalParameters["args"] = b.opts.Args
	}
	if len(b.opts.Labels) > 0 {
		d.ExternalParameters["labels"] = b.opts.Labels
	}
	d.InternalParameters = map[string]any{"builderPlatform": platformArgs(b.platform, "")["BUILDPLATFORM"]}
	d.ResolvedDependencies = b.materials
	if d.ResolvedDependencies == nil {
		d.ResolvedDependencies = []material{}
	}
	sort.Slice(d.ResolvedDependencies, func(i, j int) bool { return d.ResolvedDependencies[i].URI < d.ResolvedDependencies[j].URI })
	p.RunDetails.Builder.ID = "https://sampan.dev/build"
	if b.opts.Epoch == nil {
		start, end := b.started.UTC(), time.Now().UTC()
		p.RunDetails.Metadata.StartedOn, p.RunDetails.Metadata.FinishedOn = &start, &end
	}
	return p
}

// used notes something from elsewhere, once.
func (b *builder) used(uri string, d digest.Digest) {
	b.note(material{URI: uri, Digest: map[string]string{d.Algorithm().String(): d.Encoded()}})
}

func (b *builder) note(m material) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, known := range b.materials {
		if known.URI == m.URI {
			return
		}
	}
	b.materials = append(b.materials, m)
}

// statement wraps a predicate as in-toto has it.
func statement(kind string, predicate any, tags []string, of ocispec.Descriptor) ([]byte, error) {
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	return json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": kind, "predicate": predicate,
		"subject": []subject{{Name: named(tags), Digest: map[string]string{"sha256": of.Digest.Encoded()}}},
	})
}
