package cri

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// IsNotFound reports whether an engine's error says that the named sandbox,
// container or image isn't there.
func IsNotFound(err error) bool { return err != nil && status.Code(err) == codes.NotFound }

// IsInvalid reports whether an engine's error says that the request itself is
// wrong, so that repeating it can't help.
func IsInvalid(err error) bool { return err != nil && status.Code(err) == codes.InvalidArgument }

// IsUnimplemented reports whether an engine's error says that it can't do such a
// thing at all.
func IsUnimplemented(err error) bool { return err != nil && status.Code(err) == codes.Unimplemented }

// Message is an engine's error as a person should read it: without the gRPC
// framing that a remote engine's errors come with.
func Message(err error) string {
	if err == nil {
		return ""
	}
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// Framed is an engine's error as the CRI's clients see it, with its gRPC code ("rpc
// error: code = Unknown desc = ..."), be the engine in this process or in another.
// nil stays nil.
func Framed(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Convert(err).Err()
}

// NotFound is the error of an engine that doesn't have what was named.
func NotFound(format string, args ...any) error {
	return status.Errorf(codes.NotFound, format, args...)
}

// Unimplemented is the error of an engine that can't do what was asked.
func Unimplemented(what string) error { return status.Error(codes.Unimplemented, what) }
