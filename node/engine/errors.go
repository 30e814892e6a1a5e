package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine/archive"
	"github.com/sampan-dev/sampan/node/engine/spec"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/network"
)

// fault is an error with a gRPC status code, which both an in-process caller
// and the wire see.
type fault struct {
	code codes.Code
	err  error
}

func (f *fault) Error() string              { return f.err.Error() }
func (f *fault) Unwrap() error              { return f.err }
func (f *fault) GRPCStatus() *status.Status { return status.New(f.code, f.err.Error()) }

func invalid(format string, args ...any) error {
	return &fault{codes.InvalidArgument, fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &fault{codes.NotFound, fmt.Errorf(format, args...)}
}

func exists(format string, args ...any) error {
	return &fault{codes.AlreadyExists, fmt.Errorf(format, args...)}
}

func precondition(format string, args ...any) error {
	return &fault{codes.FailedPrecondition, fmt.Errorf(format, args...)}
}

// told is an error in other words.
type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.err }

// said is what doing something to a container came to. The runtime knows it by its ID,
// whoever reads of it by its name; and an ID that is another each time would make as
// many events of one error as there are tries.
func (c *ctr) said(doing, where string, err error) error {
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("%s %q: ", doing, c.ID))
	return &told{fmt.Sprintf("%s %q%s: %s", doing, c.Config.GetMetadata().GetName(), where, text), err}
}

// kinds says which code the kinds of the parts below become.
var kinds = []struct {
	err  error
	code codes.Code
}{
	{container.ErrNotFound, codes.NotFound},
	{container.ErrExists, codes.AlreadyExists},
	{container.ErrState, codes.FailedPrecondition},
	{container.ErrNoCRIU, codes.Unimplemented},
	{container.ErrUnsupported, codes.FailedPrecondition},
	{container.ErrBusy, codes.Aborted},
	{archive.ErrInvalid, codes.InvalidArgument},
	{image.ErrNotFound, codes.NotFound},
	{image.ErrInvalid, codes.InvalidArgument},
	{image.ErrAmbiguous, codes.InvalidArgument},
	{image.ErrInUse, codes.FailedPrecondition},
	{image.ErrTooLarge, codes.ResourceExhausted},
	{image.ErrDenied, codes.PermissionDenied},
	{network.ErrNoPodCIDR, codes.Unavailable},
	{spec.ErrInvalid, codes.InvalidArgument},
	{fs.ErrNotExist, codes.NotFound},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// coded gives err the code of its kind, if it has none yet; a failure of no
// known kind is codes.Unknown, as the wire would make it.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return &fault{k.code, err}
		}
	}
	return &fault{codes.Unknown, err}
}
