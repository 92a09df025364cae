package milter

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	gomilter "github.com/emersion/go-milter"
)

const (
	maxPacket   = 1 << 20 // octets of a milter's packet; libmilter sends at most 64 KiB but for a new body
	maxProgress = 1000    // packets of progress that one answer may take

	progress = 'p' // SMFIR_PROGRESS
	shutdown = '4' // SMFIR_SHUTDOWN
	connFail = 'f' // SMFIR_CONN_FAIL
	addRcpt2 = '2' // SMFIR_ADDRCPT_PAR
)

// A wire is a connection to a milter: whole packets, each of bounded size, in a bounded time.
//
// go-milter has a client, too. It knows no DATA event, no context and no bound on a packet, gives each mail the last
// stage's macros only where its server is the peer, and loses a connection whose negotiation fails. So its names for the
// protocol's numbers are ours, and the conversation is not its own.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	read int // octets of packets so far
}

func newWire(conn net.Conn, write time.Duration) *wire {
	return &wire{conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriterSize(timed{conn, write}, 64<<10)}
}

// timed gives each write a time of its own: a milter that answers to nothing but the end still has to read.
type timed struct {
	net.Conn
	within time.Duration
}

func (t timed) Write(p []byte) (int, error) {
	if err := t.SetWriteDeadline(time.Now().Add(t.within)); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(p)
	return n, late(err, t.within)
}

// send writes a packet, soon.
func (w *wire) send(code gomilter.Code, data []byte) error {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(1+len(data)))
	head[4] = byte(code)
	if _, err := w.w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.w.Write(data)
	return err
}

// receive writes what send has kept and reads the next packet that is no progress. That has a time, which begins anew
// with each packet of progress.
func (w *wire) receive(within time.Duration) (code byte, data []byte, err error) {
	if err := w.w.Flush(); err != nil {
		return 0, nil, err
	}
	for range maxProgress {
		if err := w.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			return 0, nil, err
		}
		code, data, err := w.packet()
		if err != nil {
			return 0, nil, late(err, within)
		}
		if code != progress {
			return code, data, nil
		}
	}
	return 0, nil, fmt.Errorf("it says %d times that it needs more time", maxProgress)
}

func (w *wire) packet() (code byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxPacket {
		return 0, nil, fmt.Errorf("a packet of %d octets: this is no milter", size)
	}
	data = make([]byte, size-1)
	if _, err := io.ReadFull(w.r, data); err != nil {
		return 0, nil, err
	}
	w.read += len(data)
	return head[4], data, nil
}

// late says what a milter that does not answer did not do.
func late(err error, within time.Duration) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer within %s", within)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it hung up")
	}
	return err
}
