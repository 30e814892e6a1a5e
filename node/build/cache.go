package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// digestOf makes a key of its parts; their boundaries count.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// change is an instruction that makes a layer.
type change struct {
	// instruction is what is done, expanded; content stands for what is read.
	instruction, content string
	// apart: the layer does not depend on those below it (--link).
	apart bool
	write func(*layerWriter) error
}

// layer adds the layer that a change makes, from the cache when it is known.
func (b *builder) layer(ctx context.Context, st *stage, c change) (cached bool, err error) {
	return b.cached(ctx, st, c, func() (image.Layer, error) {
		reader, writer := io.Pipe()
		go func() {
			w := newLayerWriter(ctx, writer, b.opts.Epoch)
			writer.CloseWithError(w.finish(c.write(w)))
		}()
		defer func() { _ = reader.Close() }() // never fails
		return b.content.WriteLayer(reader)
	})
}

// cached adds the layer known under the change's key, or the one that make makes.
func (b *builder) cached(ctx context.Context, st *stage, c change, make func() (image.Layer, error)) (bool, error) {
	below := st.key
	if c.apart {
		below = ""
	}
	epoch := ""
	if b.opts.Epoch != nil {
		epoch = b.opts.Epoch.UTC().Format(time.RFC3339)
	}
	key := digestOf(below, c.instruction, c.content, epoch)
	st.key = digestOf(st.key, key)
	if !st.fresh {
		if known, ok := b.recall(ctx, key); ok {
			st.add(known)
			b.travel.note(key, known)
			return true, nil
		}
	}
	if len(st.layers) >= image.MaxLayers {
		return false, fmt.Errorf("more than %d layers: %w", image.MaxLayers, image.ErrTooLarge)
	}
	layer, err := make()
	if err != nil {
		return false, err
	}
	made := image.Memory{Layer: layer, Created: time.Now().UTC().Truncate(time.Second), Text: c.instruction}
	st.add(made)
	made.Chain = image.ChainOf(st.layers)
	if err := b.opts.Images.Remember(key, made); err != nil {
		return false, fmt.Errorf("build cache: %w", err)
	}
	b.travel.note(key, made)
	return false, nil
}

// add puts a layer on top. The image is as old as its newest layer, so that
// building again from the cache gives the same image.
func (st *stage) add(r image.Memory) {
	st.layers = append(st.layers, r.Layer)
	if r.Created.After(st.created) {
		st.created = r.Created
	}
}
