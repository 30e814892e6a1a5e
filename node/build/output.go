package build

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// WriteTar writes the files of an image, as a container would see them, as one
// tar; times are not after epoch when that is set.
func WriteTar(ctx context.Context, images *image.Store, img image.Image, epoch *time.Time, out io.Writer) (err error) {
	content, err := images.NewBuild()
	if err != nil {
		return err
	}
	defer content.Close()
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
	w := newLayerWriter(ctx, out, epoch)
	if v.dir != "" {
		err = w.upper(v.dir)
	}
	return w.finish(err)
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
	plain, done, err := image.Decompress(in)
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

// tarBlock is the size of a tar's header.
const tarBlock = 512

func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
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
