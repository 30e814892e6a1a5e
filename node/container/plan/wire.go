package plan

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
)

// MaxMessage is the largest message on the keeper's socket. Plans do not travel
// in messages but as files whose descriptors do.
const MaxMessage = 32 << 10

// MaxFrame is the largest piece of a stream in one attach frame, header excluded.
const MaxFrame = 32 << 10

// Op is what a request asks for. One connection carries one request; the answers
// of Watch, Exec and Attach go on until either side closes.
type Op string

// The operations of the keeper.
const (
	// Hello answers with the keeper's version and pid.
	Hello Op = "hello"
	// Watch answers with every entry known, a Done, and then each exit as it happens.
	Watch Op = "watch"
	// Create forks a container's first process and answers when it is ready to
	// start. Descriptor 0 of the request is the plan.
	Create Op = "create"
	// Start lets a created container go on and answers when it has executed.
	Start Op = "start"
	// Forget drops an entry; an entry that still lives is let go, not killed.
	Forget Op = "forget"
	// Adopt takes over a container that another keeper had started.
	Adopt Op = "adopt"
	// ExecIn forks a process into a container. Descriptors of the request: plan,
	// pidfd of the container, then stdin, stdout, stderr (without tty). The first answer
	// has the pid and with a tty its master; the second has the exit code. A Brief one
	// has only the second.
	ExecIn Op = "exec"
	// Reopen opens the log file anew, after a rotation or for somebody who reads it:
	// what it has by then is no longer kept for the first client of a StdinOnce one.
	Reopen Op = "reopen"
	// Attach answers once and then carries frames.
	Attach Op = "attach"
	// Shutdown makes the keeper leave. Containers live on.
	Shutdown Op = "shutdown"
)

// Request is the first message on a connection to the keeper.
type Request struct {
	Version int
	Op      Op
	ID      string
	Child   *Child `json:",omitempty"`
	// Stdin says that an attached client has input: its end is the end of a
	// stdin that is for one client only.
	Stdin bool `json:",omitempty"`
	// Brief asks for one answer to an ExecIn without a tty: when it has ended, or could
	// not begin. A keeper that does not know the word answers twice.
	Brief bool `json:",omitempty"`
	// List says that descriptor 0 of a Brief ExecIn is no plan but what is made of one:
	// the executable of a list of calls (see steps). Only who has heard of a Level of
	// LevelLists may ask.
	List bool `json:",omitempty"`
	// Kept has an ExecIn outlive the connection, with nobody to tell of its end. A keeper
	// that does not know the word ends it with the connection.
	Kept bool `json:",omitempty"`
	// Terse writes a Brief ExecIn of a List in a few bytes instead of as JSON, and asks
	// for the same of its answer; another may follow it on the connection. Only who has
	// heard of a Level of LevelTerse may ask.
	Terse bool `json:"-"`
}

// Level is what a keeper can that others of its Version cannot: it tells with the Done
// of a Watch. Those from before there were levels say 0.
const (
	LevelLists = 1 // Request.List
	LevelTerse = 2 // Request.Terse
	// LevelRestore is ForeignRuntime.Restore.
	LevelRestore = 3
	// LevelHalt is Restore.Halt, which a keeper that does not know it would pass over.
	LevelHalt = 4
	// LevelGroups is that a List may have up to MaxGroups descriptors more than others.
	LevelGroups = 5
	Level       = LevelGroups
)

// MaxGroups is how many cgroups a list may be given the files of.
const MaxGroups = 16

// Child describes a process that the keeper parents: what it must know to fork
// it, to log it and to tell its end.
type Child struct {
	// Flags are CLONE_NEW* flags for the fork.
	Flags uintptr
	// PIDNS is a pid namespace to fork into, by path.
	PIDNS string
	// Cgroup is a directory of the unified hierarchy to be born in; empty for none.
	Cgroup string
	// Stdin, Stdout and Stderr are FIFOs, or empty: the process then has /dev/null.
	Stdin, Stdout, Stderr string
	// StdinOnce closes stdin when the first attached client ends its own.
	StdinOnce bool
	TTY       bool
	// Log is the CRI log file; empty means that output is only for attached clients.
	Log string
	// ExitFile is where the exit is recorded before anyone is told.
	ExitFile string
	// CreatorHooks run on the host when the namespaces and mounts are there. HookState
	// is the state that all hooks read, a JSON object without the pid.
	CreatorHooks []Hook `json:",omitempty"`
	HookState    string `json:",omitempty"`
	// PID and Started identify the process (Adopt only); Started is field 22 of
	// /proc/PID/stat.
	PID     int
	Started uint64
}

// Answer is what the keeper sends.
type Answer struct {
	Version int    `json:",omitempty"`
	Error   string `json:",omitempty"`
	// Code goes with Error: 126 or 127 when the program could not be executed.
	Code int  `json:",omitempty"`
	Done bool `json:",omitempty"`
	// Notes are refusals of the kernel that were tolerated.
	Notes []string `json:",omitempty"`
	PID   int      `json:",omitempty"`
	Exit  *Exit    `json:",omitempty"`
	ID    string   `json:",omitempty"`
	// Started is field 22 of /proc/PID/stat.
	Started uint64 `json:",omitempty"`
	// Created says that the process is ready but has not been started.
	Created bool `json:",omitempty"`
	// Level is the keeper's.
	Level int `json:",omitempty"`
	// Stage says that a list has failed before its program, and that a stage might do it,
	// or find the words for what is wrong.
	Stage bool `json:",omitempty"`
	// Terse writes the answer to a terse request as it was asked for.
	Terse bool `json:"-"`
}

// Exit is the end of a container, recorded on disk before anything else happens.
type Exit struct {
	ID   string
	Code int
	// Unknown says that nobody could read the status: Code is 255 then.
	Unknown bool `json:",omitempty"`
	// At is the wall clock in nanoseconds.
	At int64
}

// Report is what a stage tells the keeper: it is ready, or why it cannot be.
type Report struct {
	Ready bool   `json:",omitempty"`
	Error string `json:",omitempty"`
	Code  int    `json:",omitempty"`
	// Notes are refusals that were tolerated, one line each for the log.
	Notes []string `json:",omitempty"`
	// Hooks says that the container's namespaces and mounts are there: the time for
	// the hooks of whoever creates it. It waits for the state that its own read.
	Hooks bool `json:",omitempty"`
	// PID is the container's first process when that is not the stage.
	PID int `json:",omitempty"`
	// Numbers says that two numbers of 8 bytes follow the report: the kernel's error,
	// and the address of the call in its list.
	Numbers bool `json:",omitempty"`
}

// ReportNumbers is how long the numbers behind a report are.
const ReportNumbers = 16

// complete adds the reason that is behind the report in b.
func (r *Report) complete(b []byte) {
	if !r.Numbers || len(b) < ReportNumbers {
		return
	}
	reason := syscall.Errno(binary.LittleEndian.Uint64(b[len(b)-ReportNumbers:]))
	if r.Error == "" {
		r.Error = fmt.Sprintf("call at %#x", binary.LittleEndian.Uint64(b[len(b)-8:]))
	}
	r.Error += ": " + reason.Error()
	if r.Code == codeNotExecutable && reason == syscall.ENOENT {
		r.Code = codeNotFound
	}
}

// Exit codes of a program that could not be executed, as a shell has them.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// Stream says what an attach frame carries; it is the frame's first byte.
type Stream byte

// The streams of an attachment.
const (
	Stdin    Stream = 0
	Stdout   Stream = 1
	Stderr   Stream = 2
	StdinEOF Stream = 3
	// Resize carries rows and columns, two big-endian uint16.
	Resize Stream = 4
)

// ErrVersion says that the other side speaks another protocol.
var ErrVersion = errors.New("keeper protocol version mismatch")

// Encode returns v as one message.
func Encode(v any) ([]byte, error) {
	b := terse(v)
	if b == nil {
		var err error
		if b, err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("encode keeper message: %w", err)
		}
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode keeper message: %d bytes are more than %d", len(b), MaxMessage)
	}
	return b, nil
}

// Decode reads one message.
func Decode(b []byte, v any) error {
	if len(b) > 0 && b[0] == terseMark {
		return decodeTerse(b[1:], v)
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return fmt.Errorf("decode keeper message: %w", err)
	}
	if r, ok := v.(*Report); ok {
		r.complete(b)
	}
	return nil
}
