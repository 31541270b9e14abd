package simulator

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Sorts are the orders that a Page may have; flows that are alike in one are in
// order of time.
var Sorts = []string{"start", "bytes", "flows", "from", "to", "port"}

// MaxPage bounds how many flows a Page holds.
const MaxPage = 100_000

// Page picks the flows that come next in an order, of those that are added in any
// order. Its memory does not grow with the flows that are added.
type Page struct {
	sort    string
	limit   int
	after   *position
	found   flowHeap
	matched uint64
	later   uint64 // flows after the position
	alike   uint64 // flows at the position itself
}

// NewPage returns a Page of at most limit flows, sorted as one of Sorts says: the
// earliest first, or most bytes, most flows; "-start" is the other way round. It
// begins after the cursor of another page, or at the start where that is empty.
func NewPage(sort string, limit int, after string) (*Page, error) {
	var errs []error
	if !slices.Contains(Sorts, strings.TrimPrefix(sort, "-")) {
		errs = append(errs, fmt.Errorf("sort %q is none of %s; with - before it, it is the other way round", sort, strings.Join(Sorts, ", ")))
	}
	if limit < 1 || limit > MaxPage {
		errs = append(errs, fmt.Errorf("limit %d is not from 1 to %d; all flows are written by weir flows export", limit, MaxPage))
	}
	p := &Page{sort: sort, limit: limit}
	p.found.reverse = strings.HasPrefix(sort, "-")
	if after != "" {
		at, err := parseCursor(after)
		if err == nil && at.Sort != sort {
			err = fmt.Errorf("it is of a listing sorted by %s", at.Sort)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cursor %.40q: %w", after, err))
		}
		p.after = at
	}
	return p, errors.Join(errs...)
}

// position is where a flow stands in an order.
type position struct {
	Sort   string    `json:"s"`
	Number uint64    `json:"n,omitempty"` // what sorts, most first
	Text   string    `json:"t,omitempty"` // what sorts
	First  time.Time `json:"f"`
	File   string    `json:"r,omitempty"`
	Line   int       `json:"l,omitempty"`
	Print  uint64    `json:"p"` // of all that the flow says
	// Alike is how many flows with the same position have been listed.
	Alike uint64 `json:"a,omitempty"`
}

func parseCursor(text string) (*position, error) {
	at := &position{}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, at)
	}
	if err != nil {
		return nil, errors.New("it is not one that a listing gave")
	}
	return at, nil
}

func (p *position) cursor() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // times of flows are RFC 3339
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func (p *position) compare(q *position) int {
	return cmp.Or(
		cmp.Compare(q.Number, p.Number), strings.Compare(p.Text, q.Text), p.First.Compare(q.First),
		strings.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Print, q.Print),
	)
}

// Add considers a flow, whose maps and slices must not change afterwards.
func (p *Page) Add(f *policies.Flow) {
	p.matched++
	at := position{Sort: p.sort, First: f.First, File: f.Record.File, Line: f.Record.Line}
	switch strings.TrimPrefix(p.sort, "-") {
	case "bytes":
		at.Number = f.Bytes + f.ReplyBytes
	case "flows":
		at.Number = max(1, f.Count)
	case "from":
		at.Text = nameOf(&f.From).String() + separator + nameOf(&f.To).String()
	case "to":
		at.Text = nameOf(&f.To).String() + separator + nameOf(&f.From).String()
	case "port":
		at.Text = fmt.Sprintf("%03d%05d", f.Protocol, f.Port)
	}
	if len(p.found.all) == p.limit {
		last := &p.found.all[0].at
		at.Print = last.Print // its own takes time
		if p.found.order(&at, last) > 0 {
			p.later++
			return
		}
	}
	at.Print = printOf(f)
	if p.after != nil {
		switch c := p.found.order(&at, p.after); {
		case c < 0:
			return
		case c == 0:
			if p.alike++; p.alike <= p.after.Alike+1 {
				return
			}
		}
	}
	p.later++
	heap.Push(&p.found, placed{at, *f})
	if len(p.found.all) > p.limit {
		heap.Pop(&p.found)
	}
}

// Matched returns how many flows were added.
func (p *Page) Matched() uint64 { return p.matched }

// Flows returns the page, with the cursor of the next one; that is empty where
// nothing comes after.
func (p *Page) Flows() (flows []policies.Flow, next string) {
	slices.SortStableFunc(p.found.all, func(a, b placed) int { return p.found.order(&a.at, &b.at) })
	for _, f := range p.found.all {
		flows = append(flows, f.flow)
	}
	if n := len(p.found.all); n > 0 && p.later > uint64(n) {
		last := p.found.all[n-1].at
		for _, f := range p.found.all[:n-1] {
			if f.at.compare(&last) == 0 {
				last.Alike++
			}
		}
		if p.after != nil && p.after.compare(&last) == 0 {
			last.Alike += p.after.Alike + 1
		}
		next = last.cursor()
	}
	return flows, next
}

type placed struct {
	at   position
	flow policies.Flow
}

// flowHeap has the flow that comes last on top.
type flowHeap struct {
	all     []placed
	reverse bool
}

func (h *flowHeap) order(a, b *position) int {
	if h.reverse {
		return b.compare(a)
	}
	return a.compare(b)
}

func (h *flowHeap) Len() int           { return len(h.all) }
func (h *flowHeap) Less(i, j int) bool { return h.order(&h.all[i].at, &h.all[j].at) > 0 }
func (h *flowHeap) Swap(i, j int)      { h.all[i], h.all[j] = h.all[j], h.all[i] }
func (h *flowHeap) Push(x any)         { h.all = append(h.all, x.(placed)) }

func (h *flowHeap) Pop() any {
	last := h.all[len(h.all)-1]
	h.all = h.all[:len(h.all)-1]
	return last
}

// printOf returns a number that differs for flows that say different things.
func printOf(f *policies.Flow) uint64 {
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%+v", *f)
	return sum.Sum64()
}
