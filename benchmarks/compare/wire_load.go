// Load client for NATS JetStream and PostgreSQL, which speaks their wire protocols. It is built together with
// closed_loop.go, and needs nothing but Go's standard library.
//
// Each connection is served by one goroutine: each answer is followed by the next request, and requests are sent when
// no further answer has arrived.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// How long answers that are missing at the end of a load are waited for.
const patience = 3 * time.Second

var (
	protocol = flag.String("protocol", "", "nats or postgresql")
	mode     = flag.String("mode", "put", "put, local, or fill: put each key once, in order")
	depth    = flag.Int("depth", 1, "operations under way on each connection; 1 for postgresql")

	value []byte
)

// A dialect speaks one protocol on one connection.
type dialect interface {
	open() error                             // shake hands
	request(to []byte, slot, key int) []byte // append the request for an operation
	answer(to []byte) (int, []byte, error)   // read an answer: its slot; refusals are *refusal
}

// A refusal is an answer by which an operation has failed; the connection can still be used.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// ------------------------------------------------------------------ NATS

type nats struct {
	conn  net.Conn
	in    *bufio.Reader
	inbox string
}

func (n *nats) open() error {
	if _, err := n.in.ReadSlice('\n'); err != nil { // INFO
		return err
	}
	n.inbox = fmt.Sprintf("_INBOX.%d.%d.", os.Getpid(), rand.Int63())
	options := `{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"go"}`
	_, err := fmt.Fprintf(n.conn, "CONNECT %s\r\nSUB %s* 1\r\n", options, n.inbox)
	return err
}

func (n *nats) request(to []byte, slot, key int) []byte {
	if *mode == "local" {
		to = append(to, "PUB $JS.API.DIRECT.GET.KV_bench.$KV.bench."...)
	} else {
		to = append(to, "PUB $KV.bench."...)
	}
	to = append(to, keyName(key)...)
	to = append(append(to, ' '), n.inbox...)
	to = strconv.AppendInt(to, int64(slot), 10)
	if *mode == "local" {
		return append(to, " 0\r\n\r\n"...)
	}
	to = strconv.AppendInt(append(to, ' '), int64(len(value)), 10)
	to = append(append(to, "\r\n"...), value...)
	return append(to, "\r\n"...)
}

func (n *nats) answer(to []byte) (int, []byte, error) {
	for {
		line, err := n.in.ReadSlice('\n')
		if err != nil {
			return 0, to, err
		}
		words := strings.Fields(string(line))
		switch words[0] {
		case "PING":
			to = append(to, "PONG\r\n"...)
		case "MSG", "HMSG":
			size, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				return 0, to, err
			}
			slot, err := strconv.Atoi(strings.TrimPrefix(words[1], n.inbox))
			if err != nil {
				return 0, to, err
			}
			body := make([]byte, size+2)
			if _, err := io.ReadFull(n.in, body); err != nil {
				return 0, to, err
			}
			head, _, _ := bytes.Cut(body, []byte("\r\n"))
			if words[0] == "HMSG" && string(head) != "NATS/1.0" || words[0] == "MSG" && bytes.Contains(body, []byte(`"error"`)) {
				return slot, to, &refusal{strings.TrimSpace(string(body))}
			}
			return slot, to, nil
		case "-ERR":
			return 0, to, fmt.Errorf("%s", line)
		}
	}
}

// ------------------------------------------------------------------ PostgreSQL

type postgres struct {
	conn net.Conn
	in   *bufio.Reader
}

const upsert = "INSERT INTO kv VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

// message appends a message, whose type 0 stands for the first one, which has none.
func message(to []byte, kind byte, body ...string) []byte {
	if kind != 0 {
		to = append(to, kind)
	}
	size := 4
	for _, part := range body {
		size += len(part)
	}
	to = append(to, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(to[len(to)-4:], uint32(size))
	for _, part := range body {
		to = append(to, part...)
	}
	return to
}

func (p *postgres) open() error {
	first := message(nil, 0, "\x00\x03\x00\x00", "user\x00bench\x00database\x00postgres\x00\x00")
	if _, err := p.conn.Write(first); err != nil {
		return err
	}
	if _, _, err := p.answer(nil); err != nil {
		return err
	}
	statement := upsert
	if *mode == "local" {
		statement = "SELECT value FROM kv WHERE key = $1"
	}
	prepare := message(message(nil, 'P', "s\x00", statement, "\x00", "\x00\x00"), 'S')
	if _, err := p.conn.Write(prepare); err != nil {
		return err
	}
	_, _, err := p.answer(nil)
	return err
}

func parameter(text string) string {
	size := make([]byte, 4)
	binary.BigEndian.PutUint32(size, uint32(len(text)))
	return string(size) + text
}

func (p *postgres) request(to []byte, _, key int) []byte {
	given := "\x00\x01" + parameter(keyName(key))
	if *mode != "local" {
		given = "\x00\x02" + parameter(keyName(key)) + parameter(string(value))
	}
	to = message(to, 'B', "\x00s\x00", "\x00\x00", given, "\x00\x00")
	to = message(to, 'E', "\x00\x00\x00\x00\x00")
	return message(to, 'S')
}

func (p *postgres) answer(to []byte) (int, []byte, error) {
	var head [5]byte
	var failed error
	for {
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			if failed != nil {
				return 0, to, fmt.Errorf("%v", failed)
			}
			return 0, to, err
		}
		size := int(binary.BigEndian.Uint32(head[1:])) - 4
		if head[0] != 'E' && head[0] != 'R' {
			if _, err := p.in.Discard(size); err != nil {
				return 0, to, err
			}
		} else {
			body := make([]byte, size)
			if _, err := io.ReadFull(p.in, body); err != nil {
				return 0, to, err
			}
			if head[0] == 'E' {
				failed = &refusal{strings.ReplaceAll(string(body), "\x00", " ")}
			} else if !bytes.Equal(body, []byte{0, 0, 0, 0}) {
				return 0, to, fmt.Errorf("the server wants a password")
			}
		}
		if head[0] == 'Z' { // ready for the next query
			return 0, to, failed
		}
	}
}

// ------------------------------------------------------------------ the loop, for both

func keyName(key int) string { return fmt.Sprintf("key-%08d", key) }

func connect() (net.Conn, *bufio.Reader, dialect) {
	conn, err := net.DialTimeout("tcp", *endpoint, 5*time.Second)
	if err != nil {
		fail("cannot connect:", err)
	}
	in := bufio.NewReaderSize(conn, 1<<16)
	var spoken dialect = &nats{conn: conn, in: in}
	if *protocol == "postgresql" {
		spoken = &postgres{conn, in}
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if err := spoken.open(); err != nil {
		fail("cannot shake hands:", err)
	}
	conn.SetDeadline(time.Time{})
	return conn, in, spoken
}

// next returns the key of the next operation; ok is false when no more is to be begun.
func next(dice *rand.Rand) (key int, ok bool) {
	if atomic.LoadInt32(&stopping) != 0 {
		return 0, false
	}
	if *count == 0 {
		return dice.Intn(*keys), true
	}
	number := atomic.AddInt64(&issued, 1)
	if *mode == "fill" {
		return int(number-1) % *keys, number <= *count
	}
	return dice.Intn(*keys), number <= *count
}

func work(conn net.Conn, in *bufio.Reader, spoken dialect, seed int64) map[int]int64 {
	counts := map[int]int64{}
	dice := rand.New(rand.NewSource(seed))
	begun := make([]time.Time, *depth)
	var out []byte
	underWay := 0
	begin := func(slot int) {
		if key, ok := next(dice); ok {
			underWay++
			out = spoken.request(out, slot, key)
			begun[slot] = time.Now()
		}
	}
	for slot := range begun {
		begin(slot)
	}
	for underWay > 0 {
		if in.Buffered() == 0 && len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				fail("cannot send:", err)
			}
			out = out[:0]
		}
		slot, rest, err := spoken.answer(out)
		out = rest
		if late, isLate := err.(net.Error); isLate && late.Timeout() {
			atomic.AddInt64(&refused, int64(underWay))
			firstError.Store(fmt.Sprintf("no answer within %v after the end of the load", patience))
			break
		}
		underWay--
		if _, isRefusal := err.(*refusal); err != nil && !isRefusal {
			fail("the server hung up:", err)
		}
		note(counts, begun[slot], err)
		begin(slot)
	}
	return counts
}

func main() {
	flag.Parse()
	value = bytes.Repeat([]byte("v"), *valueBytes)
	type connected struct {
		conn   net.Conn
		in     *bufio.Reader
		spoken dialect
	}
	all := make([]connected, *connections)
	for i := range all {
		conn, in, spoken := connect()
		all[i] = connected{conn, in, spoken}
	}
	measure(len(all), func(i int) map[int]int64 {
		return work(all[i].conn, all[i].in, all[i].spoken, int64(i)+time.Now().UnixNano())
	}, func() {
		for _, each := range all { // a system may never answer some requests, as NATS does when its queues are full
			each.conn.SetReadDeadline(time.Now().Add(patience))
		}
	})
}
