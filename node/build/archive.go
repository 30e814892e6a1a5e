package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz"

	"github.com/sampan-dev/sampan/node/image"
)

// xzMagic begins every xz stream.
var xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0} //nolint:gochecknoglobals // a constant list

// Decompress is decompress for archives of images.
func Decompress(r io.Reader) (plain io.Reader, done func(), err error) { return decompress(r) }

// decompress undoes what archives of ADD come in: what image.Decompress knows, and
// xz, which layers never have. Call done when the reader is no longer used.
func decompress(r io.Reader) (plain io.Reader, done func(), err error) {
	buffered := bufio.NewReader(r)
	magic, err := buffered.Peek(len(xzMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	if !bytes.Equal(magic, xzMagic) {
		return image.Decompress(buffered)
	}
	z, err := xz.NewReader(buffered)
	if err != nil {
		return nil, nil, fmt.Errorf("xz: %w: %w", image.ErrInvalid, err)
	}
	return z, func() {}, nil
}
