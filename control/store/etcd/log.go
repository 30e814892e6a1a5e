package etcd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge is a zap logger that hands warnings and worse to log; what etcd says
// below that is of no use to anyone but etcd's developers.
func bridge(log *slog.Logger) *zap.Logger {
	return zap.New(&core{log: loggerOf(log)}, zap.WithFatalHook(abort{}), zap.WithPanicHook(abort{}))
}

// loggerOf is the logger that was given, or else the process'.
func loggerOf(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.Default()
	}
	return log
}

// harmless are messages that etcd takes more seriously than they are. They go out
// at debug level.
var harmless = map[string]bool{
	// The caller gets the same error.
	"failed to apply request":          true,
	"retrying of unary invoker failed": true,
	"bootstrap failed":                 true,
	// A database in its first second does not know its version yet; etcd tries
	// again by itself.
	"Failed to detect schema version":  true,
	"failed to update storage version": true,
	"failed to update cluster version": true,
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.": true,
}

// unpublished is what a starting member says when nobody heard it say that it is there.
// While more than 5,000 writes wait to be read again it is refused without a wait, says
// so, and tries again at once: for as long as that lasts, some two thousand times a second.
const unpublished = "failed to publish local member to cluster through raft"

// tooEarly ends raft's complaint about a campaign that lead starts too early.
const tooEarly = "pending configuration changes to apply"

// core is a zapcore.Core that writes to slog.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (c *core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: c.log, fields: slices.Concat(c.fields, fields)}
}

// Check implements zapcore.Core.
func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	switch {
	case entry.Message == unpublished && busy(fields):
		time.Sleep(campaignEvery) // whoever says this is who tries again
		return nil
	case harmless[entry.Message], strings.HasSuffix(entry.Message, tooEarly):
		level = slog.LevelDebug
	case entry.Level >= zapcore.ErrorLevel:
		level = slog.LevelError
	}
	if !c.log.Enabled(context.Background(), level) {
		return nil
	}
	c.log.LogAttrs(context.Background(), level, "etcd: "+entry.Message, attrs(slices.Concat(c.fields, fields))...)
	return nil
}

// busy says whether one of the fields is etcd's refusal of a write for which it has no time.
func busy(fields []zapcore.Field) bool {
	return slices.ContainsFunc(fields, func(f zapcore.Field) bool {
		err, ok := f.Interface.(error)
		return ok && errors.Is(err, etcderrors.ErrTooManyRequests)
	})
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	made := make([]slog.Attr, 0, len(fields))
	for _, field := range fields {
		plain := zapcore.NewMapObjectEncoder()
		field.AddTo(plain)
		for key, value := range plain.Fields {
			made = append(made, slog.Any(key, value))
		}
	}
	return made
}

// abort is what zap does after a message after which etcd cannot go on. zap's
// own answer is to exit the process on the spot: no sentence, no clean-up. While
// the server starts, the panic is caught and becomes the error of Start; later,
// it ends the process with the reason, since what etcd holds is no longer true.
type abort struct {
	message string
	cause   error
}

// OnWrite implements zapcore.CheckWriteHook.
func (abort) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	reason := abort{message: entry.Message}
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			reason.cause = err
		}
	}
	panic(reason)
}

// Error tells the reason.
func (a abort) Error() string {
	if a.cause == nil {
		return a.message
	}
	return a.message + ": " + a.cause.Error()
}

// Unwrap is the cause.
func (a abort) Unwrap() error { return a.cause }
