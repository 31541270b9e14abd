//go:build linux

package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weir-policy/weir/policies/netset"
)

// checkpoint is where a Recorder goes on after it was stopped, however rudely: what of
// each connection is in the files, and which bytes of those count.
type checkpoint struct {
	At      time.Time
	Files   []file // the last one is the one that grows
	Denials map[string]*tally
	entries []byte // of all open connections, entrySize bytes each
}

// file is one of records.
type file struct {
	Name    string
	Bytes   int64
	Records uint64
}

// An entry is its key, the number of the connection, its start, and what is recorded.
const entrySize = 16 + 16 + 2 + 2 + 2 + 1 + 1 + 4 + 8 + 4*8

// checkpoint returns what is known of the open connections. The files are for the disk
// to add.
func (b *book) checkpoint(now time.Time) *checkpoint {
	c := &checkpoint{At: now, Denials: map[string]*tally{}, entries: make([]byte, 0, entrySize*b.open)}
	for name, t := range b.denial.of {
		copied := *t
		c.Denials[name] = &copied
	}
	for k, newest := range b.entries {
		c.entries = appendEntries(c.entries, k, newest)
	}
	return c
}

// appendEntries appends the entries of a key, the oldest first.
func appendEntries(to []byte, k key, newest *entry) []byte {
	if newest == nil {
		return to
	}
	return appendEntry(appendEntries(to, k, newest.older), k, newest)
}

func appendEntry(to []byte, k key, e *entry) []byte {
	to = append(append(to, k.source[:]...), k.target[:]...)
	for _, n := range []uint16{k.sourcePort, k.targetPort, k.zone} {
		to = binary.LittleEndian.AppendUint16(to, n)
	}
	family := byte(4)
	if k.ipv6 {
		family = 6
	}
	to = append(to, byte(k.protocol), family)
	to = binary.LittleEndian.AppendUint32(to, e.id)
	to = binary.LittleEndian.AppendUint64(to, uint64(e.start))
	for _, c := range e.counted {
		to = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(to, c.Packets), c.Bytes)
	}
	return to
}

// restore makes a book remember what a checkpoint knows, which may be nil.
func (c *checkpoint) restore(b *book) {
	if c == nil {
		return
	}
	for name, t := range c.Denials {
		b.denial.of[name] = t
	}
	for rest := c.entries; len(rest) >= entrySize; rest = rest[entrySize:] {
		k := key{source: [16]byte(rest), target: [16]byte(rest[16:]), protocol: netset.Protocol(rest[38]), ipv6: rest[39] == 6}
		k.sourcePort, k.targetPort, k.zone = binary.LittleEndian.Uint16(rest[32:]), binary.LittleEndian.Uint16(rest[34:]), binary.LittleEndian.Uint16(rest[36:])
		e := &entry{id: binary.LittleEndian.Uint32(rest[40:]), start: int64(binary.LittleEndian.Uint64(rest[44:])), heard: true, older: b.entries[k]}
		for way := range e.counted {
			at := rest[52+16*way:]
			e.counted[way].Packets, e.counted[way].Bytes = binary.LittleEndian.Uint64(at), binary.LittleEndian.Uint64(at[8:])
		}
		b.entries[k] = e
		b.open++
	}
}

// encode returns the checkpoint as a file: a line of JSON, and the entries.
func (c *checkpoint) encode() ([]byte, error) {
	head, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return append(append(head, '\n'), c.entries...), nil
}

func decodeCheckpoint(text []byte) (*checkpoint, error) {
	head, entries, ok := bytes.Cut(text, []byte{'\n'})
	if !ok || len(entries)%entrySize != 0 {
		return nil, errors.New("it is cut off")
	}
	c := &checkpoint{entries: entries}
	if err := json.Unmarshal(head, c); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	for name, t := range c.Denials {
		if t == nil {
			delete(c.Denials, name)
		}
	}
	return c, nil
}
