package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// CheckOptions say how thoroughly a store is looked at, and what is done about damage.
type CheckOptions struct {
	// Quick reads no content: blobs must be there, and as long as their manifests say.
	Quick bool
	// Repair puts damaged blobs aside, so that a pull brings them anew, and unpacks damaged
	// layers again, from blobs that are whole. What containers stand on stays as it is.
	Repair bool
	// Image is the one that is looked at, by what Get knows; "" is all that is stored.
	Image string
}

// Checked is what a look at the store has found.
type Checked struct {
	// Blobs and Layers were looked at, Bytes of blobs read. Skipped layers could not be
	// compared, since their blobs are damaged.
	Blobs, Layers, Skipped int
	Bytes                  int64
	Damaged                []Damage
}

// Damage is one thing that is not what its name says.
type Damage struct {
	// Layer says whether it is an unpacked layer, which Digest then is the chain ID of;
	// otherwise it is a blob.
	Layer  bool
	Digest digest.Digest
	// Images are the names of the images that need it, Origins where those of them that
	// came from a registry did.
	Images  []string
	Origins []Origin
	// Snapshots are the keys of those that stand on it.
	Snapshots []string
	// Mended: a layer that has been unpacked anew.
	Mended bool
	Cause  error
}

// Check compares what is stored with its digests: every blob, and every layer of this
// machine's images that is unpacked with the blob it came from. It reads everything, and
// needs room for the largest layer. Nodes and builds may go on meanwhile.
func (s *Store) Check(ctx context.Context, opts CheckOptions) (Checked, error) {
	end, err := s.begin()
	if err != nil {
		return Checked{}, fmt.Errorf("check images: %w", err)
	}
	c := &checking{store: s, opts: opts, end: end, bad: map[digest.Digest]bool{}}
	defer func() { c.end() }()
	for _, look := range []func(context.Context) error{c.survey, c.blobs, c.layers} {
		if err := look(ctx); err != nil {
			return c.found, fmt.Errorf("check images: %w", err)
		}
	}
	return c.found, nil
}

// checking is one Check under way.
type checking struct {
	store *Store
	opts  CheckOptions
	found Checked
	// end says that nobody is busy with the store here.
	end func()
	// needed are the entries of the index that need a blob or layer, by the hex part of
	// its digest; standing the snapshots on a layer.
	needed   map[string][]ocispec.Descriptor
	standing map[string][]string
	bad      map[digest.Digest]bool
	// only are the blobs that are looked at, as in needed, of the image with the ID; nil is all.
	only map[string]bool
	id   string
}

// survey finds who needs what.
func (c *checking) survey(context.Context) error {
	c.needed, c.standing = map[string][]ocispec.Descriptor{}, map[string][]string{}
	if err := c.narrow(); err != nil {
		return err
	}
	index, err := c.store.current()
	if err != nil {
		return err
	}
	for _, entry := range index.Manifests {
		blobs, layers := map[string]bool{}, map[string]bool{}
		if err := c.store.markTree(entry.Digest, blobs, layers); err != nil && !isDamage(err) {
			return err
		}
		for _, all := range []map[string]bool{blobs, layers} {
			for hex := range all {
				c.needed[hex] = append(c.needed[hex], entry)
			}
		}
		for hex := range blobs {
			if d := digest.NewDigestFromEncoded(digest.SHA256, hex); !c.beside(hex) && !c.store.hasBlob(d) {
				c.hurt(Damage{Digest: d, Cause: fmt.Errorf("it is missing: %w", ErrNotFound)})
			}
		}
	}
	return c.stand()
}

// stand finds which snapshots stand on which layers.
func (c *checking) stand() error {
	clear(c.standing)
	keys, err := c.store.Snapshots()
	for _, key := range keys {
		snap, err := readSnapshot(filepath.Join(c.store.root, "snapshots", key))
		for _, chain := range snap.Chains {
			if err == nil {
				c.standing[chain.Encoded()] = append(c.standing[chain.Encoded()], key)
			}
		}
	}
	return err
}

// narrow finds what is looked at.
func (c *checking) narrow() error {
	if c.opts.Image == "" {
		return nil
	}
	img, err := c.store.Get(c.opts.Image)
	if err != nil {
		return err
	}
	c.only, c.id = map[string]bool{}, img.ID
	if err := c.store.markTree(img.Manifest, c.only, map[string]bool{}); err != nil && !isDamage(err) {
		return err
	}
	return nil
}

// beside says that a blob is not looked at.
func (c *checking) beside(hex string) bool { return c.only != nil && !c.only[hex] }

// hurt notes damage, once.
func (c *checking) hurt(d Damage) {
	if c.bad[d.Digest] {
		return
	}
	c.bad[d.Digest] = true
	for _, entry := range c.needed[d.Digest.Encoded()] {
		name := entry.Annotations[refAnnotation]
		if name != "" && entry.Annotations[madeAnnotation] == "" {
			d.Origins = append(d.Origins, Origin{Name: name, Digest: entry.Digest, Top: digest.Digest(entry.Annotations[topAnnotation])})
		}
		if name == "" {
			name = entry.Digest.String()
		}
		d.Images = append(d.Images, name)
	}
	d.Snapshots = c.standing[d.Digest.Encoded()]
	c.found.Damaged = append(c.found.Damaged, d)
}

// blobs looks at every blob, be it one that only the build cache remembers.
func (c *checking) blobs(ctx context.Context) error {
	images, err := c.store.List()
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, img := range images {
		for _, l := range img.Layers {
			sizes[l.Digest.Encoded()] = l.Size
		}
	}
	entries, err := os.ReadDir(filepath.Join(c.store.root, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !isDigest(d) || c.beside(e.Name()) {
			continue
		}
		err := c.blob(d, sizes)
		if errors.Is(err, ErrNotFound) { // removed while we look
			continue
		}
		c.found.Blobs++
		if err == nil {
			continue
		}
		if c.opts.Repair {
			if err := c.store.putAside(d); err != nil {
				return err
			}
		}
		c.hurt(Damage{Digest: d, Cause: err})
	}
	return nil
}

// blob looks at one.
func (c *checking) blob(d digest.Digest, sizes map[string]int64) error {
	info, err := os.Stat(c.store.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	if want, ok := sizes[d.Encoded()]; ok && info.Size() != want {
		return fmt.Errorf("it has %d bytes, and should have %d: %w", info.Size(), want, ErrInvalid)
	}
	if c.opts.Quick {
		return nil
	}
	c.found.Bytes += info.Size()
	return c.store.verify(d)
}

// verify reads a blob and compares it with its name.
func (s *Store) verify(d digest.Digest) error {
	f, err := s.openBlob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := newCounter(f)
	if _, err := io.Copy(io.Discard, hash); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if hash.hash.Digest() != d {
		return errContent
	}
	return nil
}

// errContent says that a blob is not what its name says.
var errContent = fmt.Errorf("content does not match its digest: %w", ErrInvalid)

// layers looks at every layer of an image that is unpacked.
func (c *checking) layers(ctx context.Context) error {
	images, err := c.store.List()
	if err != nil || c.opts.Quick {
		return err
	}
	seen := map[digest.Digest]bool{}
	for _, img := range images {
		if checkLayers(img) != nil || c.id != "" && img.ID != c.id {
			continue
		}
		for i := range img.Layers {
			chain := img.Chain(i)
			if _, err := os.Lstat(c.store.layerPath(chain)); seen[chain] || err != nil {
				continue
			}
			seen[chain] = true
			if c.bad[img.Layers[i].Digest] {
				c.found.Skipped++
				continue
			}
			c.found.Layers++
			if err := c.layer(ctx, img, i); err != nil {
				return fmt.Errorf("layer %q: %w", chain, err)
			}
		}
	}
	return nil
}

// layer unpacks a layer again, compares, and puts what it has in the place of what was
// there when that is wanted and nobody stands on it.
func (c *checking) layer(ctx context.Context, img Image, i int) error {
	chain := img.Chain(i)
	unlock, err := c.store.unpacking.lock(ctx, chain.String())
	if err != nil {
		return err
	}
	defer unlock()
	fresh, err := c.store.fromBlob(ctx, img.Layers[i], img.Config.RootFS.DiffIDs[i])
	if err != nil {
		return err
	}
	defer fresh.discard()
	var below []string
	for j := range i {
		below = append(below, c.store.layerPath(img.Chain(j)))
	}
	if err := fresh.settle(below); err != nil {
		return err
	}
	there := c.store.layerPath(chain)
	differs, err := compareTrees(fresh.dir, there)
	if err != nil || differs == nil {
		return err
	}
	d := Damage{Layer: true, Digest: chain, Cause: differs}
	if c.opts.Repair {
		if d.Mended, err = c.mend(fresh.dir, chain); err != nil {
			return err
		}
	}
	c.hurt(d)
	return nil
}

// mend has a layer unpacked anew take its place, when nobody uses it. Since the look began
// a container may have come to stand on it, and a build uses layers without a snapshot: so
// for this moment nobody else may be busy with the store.
func (c *checking) mend(fresh string, chain digest.Digest) (mended bool, failed error) {
	c.end()
	defer func() {
		end, err := c.store.begin()
		if err != nil {
			end = func() {}
		}
		c.end, failed = end, errors.Join(failed, err)
	}()
	unlock, err := c.store.flock(busyLock, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil // the next look may find it idle
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := c.stand(); err != nil || len(c.standing[chain.Encoded()]) > 0 {
		return false, err
	}
	if _, err := os.Lstat(fresh); errors.Is(err, fs.ErrNotExist) { // swept away, as what is left behind
		return false, nil
	}
	return true, c.store.exchange(fresh, c.store.layerPath(chain))
}

// exchange puts a directory durably in the place of another, which goes.
func (s *Store) exchange(fresh, old string) error {
	if err := syncFilesystem(fresh); err != nil {
		return err
	}
	away, err := os.MkdirTemp(filepath.Join(s.root, "ingest"), "old-*")
	if err != nil {
		return err
	}
	if err := os.Rename(old, filepath.Join(away, "layer")); err != nil {
		return err
	}
	if err := os.Rename(fresh, old); err != nil {
		return err
	}
	return errors.Join(atomicfile.SyncDir(filepath.Dir(old)), os.RemoveAll(away))
}

// Origins are where damage came from which a registry can bring anew, each once.
func (c Checked) Origins() []Origin {
	var all []Origin
	for _, d := range c.Damaged {
		if !d.Layer {
			all = append(all, d.Origins...)
		}
	}
	slices.SortFunc(all, func(a, b Origin) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(all)
}
