package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"strake/keeper/wire"
)

// Client is a connection to a keeper. Its methods may be called concurrently. A canceled context
// ends the waiting; what the request does is then unknown, except that Start leaves no process
// behind.
//
// Errors are of the classes of package errdefs: ErrNotFound for an unknown ID, ErrAlreadyExists,
// ErrInvalidArgument with the field's name, ErrFailedPrecondition for what the process's state does
// not allow, ErrUnavailable with ErrClosed when the connection is gone.
type Client struct {
	conn  *net.UnixConn
	hello wire.Welcome
	done  chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	calls   map[uint32]*call // guarded by mu
	last    uint32           // guarded by mu
	events  []Event          // guarded by mu
	arrived chan struct{}    // capacity 1: events or err changed
	err     error            // guarded by mu; why the connection ended
}

// call is a request that waits for its answer.
type call struct {
	answers []answer
	done    chan struct{}
	// dropped says that the caller has stopped waiting. Guarded by Client.mu.
	dropped bool
}

type answer struct {
	body wire.Body
	fds  []int
}

func (a answer) close() { closeAll(a.fds) }

// Events says whether a connection wants events.
type Events bool

const (
	// WithEvents delivers every event from now on, after those of processes that have exited and
	// are not forgotten.
	WithEvents Events = true
	// WithoutEvents is for a connection that only asks.
	WithoutEvents Events = false
)

// Dial connects to the keeper that listens at path. It is errdefs.ErrUnavailable if none does.
func Dial(ctx context.Context, path string, events Events) (*Client, error) {
	fd, err := wire.Connect(path)
	if err != nil {
		return nil, fmt.Errorf("dial the keeper: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	conn, err := net.FileConn(f) // a duplicate
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("dial the keeper: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf(
			"dial the keeper: %T is no unix socket: %w", conn, errdefs.ErrInternal,
		)
	}
	c := &Client{
		conn: unixConn, done: make(chan struct{}), calls: make(map[uint32]*call),
		arrived: make(chan struct{}, 1),
	}
	go c.read()
	a, err := c.ask(ctx, &wire.Hello{Events: bool(events)}, nil)
	if err == nil {
		w, ok := a.body.(*wire.Welcome)
		if !ok {
			err = unexpected(a)
		} else {
			c.hello = *w
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greet the keeper at %q: %w", path, err)
	}
	return c, nil
}

// Close ends the connection and waits for its reader. Processes are not affected.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Pid is the keeper's process ID.
func (c *Client) Pid() int { return c.hello.Pid }

// Started is when the keeper came to be, and upgrades is how often it has replaced its program
// since, as of Dial.
func (c *Client) Started() (at time.Time, upgrades int) {
	return time.Unix(0, c.hello.Started), int(c.hello.Upgrades)
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Next returns the next event, in the order in which the keeper sent them. It is for one goroutine;
// events that it does not fetch are kept in memory. When the connection has ended and all events
// are fetched, it returns ErrClosed.
func (c *Client) Next(ctx context.Context) (Event, error) {
	for {
		c.mu.Lock()
		if len(c.events) > 0 {
			e := c.events[0]
			c.events = c.events[1:]
			c.mu.Unlock()
			return e, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-c.arrived:
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read is the connection's reader; it ends with the connection.
func (c *Client) read() {
	defer close(c.done)
	buf := make([]byte, wire.MaxMessage)
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxFDs))
	var err error
	for err == nil {
		var n, oobn, flags int
		n, oobn, flags, _, err = c.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			break
		}
		var fds []int
		if fds, err = receivedFDs(oob[:oobn]); err != nil {
			break
		}
		if n == 0 || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			answer{fds: fds}.close()
			err = fmt.Errorf("packet of %d bytes, flags %#x", n, flags)
			break
		}
		var request uint32
		var body wire.Body
		if request, body, err = wire.Decode(buf[:n]); err != nil {
			answer{fds: fds}.close()
			break
		}
		if request == 0 {
			c.event(body)
			answer{fds: fds}.close()
			continue
		}
		c.answer(request, answer{body, fds})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w: %w", ErrClosed, err, errdefs.ErrUnavailable)
	for _, w := range c.calls {
		close(w.done)
	}
	c.calls = nil
}

func receivedFDs(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // credentials or the like, which this end has not asked for
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func (c *Client) event(b wire.Body) {
	var e Event
	switch b := b.(type) {
	case *wire.ExitedEvent:
		e = &ExitEvent{ID: b.ID, Owner: b.Owner, Kind: b.Kind, Exit: *exitOf(&b.Exit)}
	case *wire.StreamsClosedEvent:
		e = &StreamsClosedEvent{ID: b.ID}
	case *wire.DetachedEvent:
		e = &DetachedEvent{ID: b.ID, Subscription: b.Subscription, Lost: b.Lost}
	case *wire.LogEvent:
		e = &LogEvent{ID: b.ID, Lost: b.Lost, Reason: b.Reason}
	default:
		return
	}
	c.mu.Lock()
	c.events = append(c.events, e)
	c.mu.Unlock()
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

func (c *Client) answer(request uint32, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.calls[request]
	if w == nil || w.dropped {
		a.close()
		if w != nil && final(a) {
			delete(c.calls, request)
		}
		return
	}
	w.answers = append(w.answers, a)
	if final(a) {
		delete(c.calls, request)
		close(w.done)
	}
}

// final says whether an answer is the last one of its request.
func final(a answer) bool {
	p, ok := a.body.(*wire.Process)
	return !ok || !p.More
}

// number returns a fresh number for a request; 0 is for events. Precondition: c.mu is held.
func (c *Client) number() uint32 {
	if c.last++; c.last == 0 {
		c.last++
	}
	return c.last
}

// roundTrip sends a request and waits for all its answers. Descriptors stay the caller's.
func (c *Client) roundTrip(ctx context.Context, b wire.Body, fds []int) ([]answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &call{done: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	request := c.number()
	c.calls[request] = w
	c.mu.Unlock()
	packet, err := wire.Encode(nil, request, b)
	if err == nil && len(fds) > wire.MaxFDs {
		err = fmt.Errorf(
			"%d descriptors, at most %d are allowed: %w", len(fds), wire.MaxFDs,
			errdefs.ErrInvalidArgument,
		)
	}
	if err == nil {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		if _, _, err = c.conn.WriteMsgUnix(packet, oob, nil); err != nil {
			err = fmt.Errorf("send to the keeper: %w: %w", err, errdefs.ErrUnavailable)
		}
	}
	if err != nil {
		c.mu.Lock()
		delete(c.calls, request)
		c.mu.Unlock()
		return nil, err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		c.mu.Lock()
		w.dropped = true
		answers := w.answers
		w.answers = nil
		c.mu.Unlock()
		for _, a := range answers {
			a.close()
		}
		return nil, ctx.Err()
	}
	if len(w.answers) == 0 || !final(w.answers[len(w.answers)-1]) {
		for _, a := range w.answers {
			a.close()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.err
	}
	return w.answers, nil
}

// ask is roundTrip for a request with one answer. An error that the keeper reports is returned as
// such.
func (c *Client) ask(ctx context.Context, b wire.Body, fds []int) (answer, error) {
	list, err := c.roundTrip(ctx, b, fds)
	if err != nil {
		return answer{}, err
	}
	a := list[len(list)-1]
	if e, ok := a.body.(*wire.Error); ok {
		a.close()
		return answer{}, errorOf(e)
	}
	return a, nil
}

// do is ask for a request whose answer says nothing.
func (c *Client) do(ctx context.Context, b wire.Body, fds []int) error {
	a, err := c.ask(ctx, b, fds)
	if err != nil {
		return err
	}
	if e, ok := a.body.(*wire.Empty); !ok || e.T != wire.TypeOK {
		return unexpected(a)
	}
	return nil
}

func unexpected(a answer) error {
	a.close()
	return fmt.Errorf(
		"the keeper answered with a message of type %d: %w", a.body.Type(), errdefs.ErrInternal,
	)
}

// process takes a process out of an answer.
func (a answer) process() (*Process, error) {
	b, ok := a.body.(*wire.Process)
	if !ok {
		return nil, unexpected(a)
	}
	p, ok := newProcess(b, a.fds)
	if !ok {
		return nil, unexpected(a)
	}
	return p, nil
}

// descriptor returns a file's descriptor without changing its mode. The caller keeps the file
// alive.
func descriptor(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	if err := raw.Control(func(fd uintptr) { n = int(fd) }); err != nil {
		return -1, err
	}
	return n, nil
}
