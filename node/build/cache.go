package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/image"
)

// cache remembers which layer came of which key. A record whose layer has been
// removed with the last image that had it is as good as none.
type cache struct {
	dir string
}

// record is what is kept of one finished instruction.
type record struct {
	Layer   image.Layer `json:"layer"`
	Created time.Time   `json:"created"`
	// Text is for a person who looks.
	Text string `json:"text"`
}

func (c cache) path(key string) string { return filepath.Join(c.dir, key+".json") }

func (c cache) get(key string) (record, bool) {
	var r record
	return r, c.dir != "" && atomicfile.ReadJSON(c.path(key), &r) == nil
}

func (c cache) put(key string, r record) error {
	if c.dir == "" {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.WriteJSON(c.path(key), r)
}

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
	write                func(*layerWriter) error
}

// layer adds the layer that a change makes, from the cache when it is known.
func (b *builder) layer(ctx context.Context, st *stage, c change) (cached bool, err error) {
	return b.cached(st, c, func() (image.Layer, error) {
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
func (b *builder) cached(st *stage, c change, make func() (image.Layer, error)) (bool, error) {
	st.key = digestOf(st.key, c.instruction, c.content)
	if known, ok := b.cache.get(st.key); ok && !b.opts.NoCache && b.content.Has(known.Layer) {
		st.add(known)
		return true, nil
	}
	layer, err := make()
	if err != nil {
		return false, err
	}
	made := record{Layer: layer, Created: time.Now().UTC(), Text: c.instruction}
	st.add(made)
	if err := b.cache.put(st.key, made); err != nil {
		return false, fmt.Errorf("build cache: %w", err)
	}
	return false, nil
}

// add puts a layer on top. The image is as old as its newest layer, so that
// building again from the cache gives the same image.
func (st *stage) add(r record) {
	st.layers = append(st.layers, r.Layer)
	if r.Created.After(st.created) {
		st.created = r.Created
	}
}
