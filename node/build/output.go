package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// Part is an image of a result that has several, and the directory that is its own.
type Part struct {
	Image image.Image
	Dir   string
}

// PlatformDir is how BuildKit calls the directory of a platform: linux_arm_v7.
func PlatformDir(name string) string {
	if p, err := parsePlatform(name); err == nil {
		name = p.String()
	}
	return strings.ReplaceAll(name, "/", "_")
}

// WriteTar writes the files of an image, as a container would see them, as one
// tar; times are not after epoch when that is set.
func WriteTar(ctx context.Context, images *image.Store, img image.Image, epoch *time.Time, out io.Writer) error {
	return WriteTars(ctx, images, []Part{{Image: img}}, epoch, out)
}

// WriteTars is WriteTar of several, each below its directory.
func WriteTars(ctx context.Context, images *image.Store, parts []Part, epoch *time.Time, out io.Writer) error {
	w := newLayerWriter(ctx, out, epoch)
	for _, p := range parts {
		w.below = p.Dir
		if err := writeTree(ctx, images, p, w); err != nil {
			return err
		}
	}
	return w.finish(nil)
}

func writeTree(ctx context.Context, images *image.Store, p Part, w *layerWriter) (err error) {
	img := p.Image
	content, err := images.NewBuild()
	if err != nil {
		return err
	}
	defer content.Close()
	if p.Dir != "" {
		w.below = ""
		if err := w.parent(p.Dir, owner{parent: 0o755}); err != nil {
			return err
		}
		w.below = p.Dir
	}
	var layers []image.Layer
	for i, l := range img.Layers {
		layers = append(layers, image.Layer{Blob: l, DiffID: img.Config.RootFS.DiffIDs[i]})
	}
	b := &builder{content: content}
	v, err := b.view(ctx, layers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if v.dir == "" {
		return nil
	}
	return w.upper(v.dir)
}

// WriteFiles puts the files of an image into a directory, which is made.
func WriteFiles(ctx context.Context, images *image.Store, img image.Image, epoch *time.Time, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // it is the caller's, to be read by whoever may
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(WriteTar(ctx, images, img, epoch, writer)) }()
	defer func() { _ = reader.Close() }() // never fails
	return image.Extract(ctx, reader, dir)
}

// ReadContext takes a build context from a stream, as from standard input: a tar,
// compressed or not, whose files go to dir, or else a Dockerfile alone, which it
// returns.
func ReadContext(ctx context.Context, in io.Reader, dir string) (dockerfile []byte, err error) {
	plain, done, err := decompress(in)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	defer done()
	buffered := bufio.NewReaderSize(plain, tarBlock)
	head, err := buffered.Peek(tarBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("build context: %w", err)
	}
	if isTar(head) {
		return nil, image.Extract(ctx, buffered, dir)
	}
	raw, err := io.ReadAll(io.LimitReader(buffered, MaxDockerfile+1))
	if err == nil && len(raw) > MaxDockerfile {
		err = fmt.Errorf("standard input is no tar, and as a Dockerfile of more than %d bytes: %w", MaxDockerfile, image.ErrTooLarge)
	}
	if err == nil && len(raw) == 0 {
		err = fmt.Errorf("standard input is empty: %w", image.ErrInvalid)
	}
	return raw, err
}

// FetchContext is ReadContext of what a URL leads to.
func FetchContext(ctx context.Context, from, dir string) (dockerfile []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, downloadWhole, fmt.Errorf("took more than %s", downloadWhole))
	defer cancel()
	answer, err := get(ctx, from, "")
	if err != nil {
		return nil, fmt.Errorf("build context %s: %w", from, err)
	}
	defer answer.Body.Close()
	dockerfile, err = ReadContext(ctx, io.LimitReader(answer.Body, MaxDownload), dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return dockerfile, nil
}

// FetchDockerfile is the text that a URL leads to.
func FetchDockerfile(ctx context.Context, from string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, downloadAnswer, fmt.Errorf("took more than %s", downloadAnswer))
	defer cancel()
	answer, err := get(ctx, from, "")
	if err != nil {
		return nil, fmt.Errorf("the Dockerfile at %s: %w", from, err)
	}
	defer answer.Body.Close()
	return io.ReadAll(io.LimitReader(answer.Body, MaxDockerfile+1)) // more is told by who reads it
}

// tarBlock is the size of a tar's header.
const tarBlock = 512

func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return true // one without files
	}
	_, err := tar.NewReader(&once{head}).Next()
	return err == nil || errors.Is(err, io.EOF)
}

// once reads what it has.
type once struct{ rest []byte }

func (o *once) Read(p []byte) (int, error) {
	if len(o.rest) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}
