package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// Attach joins the streams to those of the container until it ends, the client's
// context does, or writing to the client fails. With a tty stderr gets nothing.
func (r *Runtime) Attach(ctx context.Context, id string, stdin io.Reader, stdout, stderr io.Writer, resize <-chan Size) error {
	if _, err := r.find(id); err != nil {
		return err
	}
	conn, err := r.keeper.request(plan.Request{Op: plan.Attach, ID: id, Stdin: stdin != nil})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var a plan.Answer
	if _, err := recvMessage(conn, &a); err != nil {
		return fmt.Errorf("attach to container %q: %w", id, err)
	}
	if a.Error != "" {
		return fmt.Errorf("attach to container %q: %s", id, a.Error)
	}
	over := make(chan struct{})
	defer close(over)
	if stdin != nil {
		go sendStdin(conn, stdin)
	}
	if resize != nil {
		go sendSizes(conn, resize, over)
	}
	return receive(conn, stdout, stderr)
}

func sendStdin(conn *net.UnixConn, stdin io.Reader) {
	b := make([]byte, plan.MaxFrame+1)
	b[0] = byte(plan.Stdin)
	for {
		n, err := stdin.Read(b[1:])
		if n > 0 {
			if _, err := conn.Write(b[:1+n]); err != nil {
				return
			}
		}
		if err != nil {
			_, _ = conn.Write([]byte{byte(plan.StdinEOF)}) // the keeper has gone, and its containers' input with it
			return
		}
	}
}

func sendSizes(conn *net.UnixConn, resize <-chan Size, over <-chan struct{}) {
	for {
		select {
		case s, ok := <-resize:
			if !ok {
				return
			}
			b := binary.BigEndian.AppendUint16([]byte{byte(plan.Resize)}, s.Rows)
			if _, err := conn.Write(binary.BigEndian.AppendUint16(b, s.Cols)); err != nil {
				return
			}
		case <-over:
			return
		}
	}
}

// receive copies frames to the writers until the keeper hangs up.
func receive(conn *net.UnixConn, stdout, stderr io.Writer) error {
	b := make([]byte, plan.MaxFrame+1)
	reset := false
	for {
		n, err := conn.Read(b)
		if errors.Is(err, unix.ECONNRESET) && !reset {
			reset = true // input that the container never read; its last output is still here
			continue
		}
		if err != nil || n == 0 {
			return nil
		}
		w := stdout
		if plan.Stream(b[0]) == plan.Stderr {
			w = stderr
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(b[1:n]); err != nil {
			return nil
		}
	}
}
