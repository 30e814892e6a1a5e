package main

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// terminal passes between ours and that of a container in the foreground.
type terminal struct {
	master *os.File
	old    *unix.Termios
	done   chan struct{}
}

// terminalDrain is how long output is still read when the process has ended and a
// child of its own keeps the terminal.
const terminalDrain = time.Second

// open takes the container's master.
func (t *terminal) open(master *os.File) error {
	if err := unix.SetNonblock(int(master.Fd()), true); err != nil {
		return err
	}
	t.master, t.done = os.NewFile(master.Fd(), "tty"), make(chan struct{})
	if err := plainNewlines(int(master.Fd())); err != nil {
		return err
	}
	if old, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		raw := *old
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag |= unix.OPOST // who has plain newlines needs the carriage return that it adds
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); err != nil {
			return err
		}
		t.old = old
	}
	t.resize()
	go func() { _, _ = io.Copy(t.master, os.Stdin) }() // ends with this program
	go func() {
		defer close(t.done)
		_, _ = io.Copy(os.Stdout, t.master) // EIO is how a terminal ends
	}()
	return nil
}

// plainNewlines takes from a terminal that it ends lines with a carriage return: our own
// terminal adds it, and a file or a pipe shall not have it. So do runc's.
func plainNewlines(fd int) error {
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return os.NewSyscallError("tcgetattr", err)
	}
	state.Oflag &^= unix.ONLCR
	return os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(fd, unix.TCSETS, state))
}

// resize gives the container's terminal the size of ours.
func (t *terminal) resize() {
	if t.master == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size) // it may just have gone
	}
}

// close waits for the rest of the output and gives our terminal back as it was.
func (t *terminal) close() error {
	if t.master == nil {
		return nil
	}
	err := t.master.SetReadDeadline(time.Now().Add(terminalDrain))
	<-t.done
	if t.old != nil {
		err = errors.Join(err, unix.IoctlSetTermios(0, unix.TCSETS, t.old))
	}
	return err
}
