package flowstore

import (
	"bytes"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// inMemory is a file in memory.
type inMemory struct{ *bytes.Reader }

func (m inMemory) close()       {}
func (m inMemory) size() int64  { return m.Size() }
func (m inMemory) name() string { return "memory" }

var numberLayout = newLayout([]column{number("plain"), moments("time").asSteps(), code("coded"), code("key").asKey()})

func TestNumbersComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-3, 300), rapid.Just(int64(7))), 1, 700)
		var groups [][]int64
		var all []int64
		for range rapid.IntRange(1, 3).Draw(t, "groups") {
			groups = append(groups, values.Draw(t, "values"))
			all = append(all, groups[len(groups)-1]...)
		}
		data := numbersFile(t, groups)
		g, err := newGroupReader(inMemory{bytes.NewReader(data)}, numberLayout, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got [4][]int64
		for {
			n, err := g.readUpTo(rapid.Int64Range(1, 100).Draw(t, "rows"))
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			for column, v := range g.vectors {
				for i := range n {
					got[column] = append(got[column], valueOf(&v, i))
				}
			}
		}
		for column := range got {
			if diff := gocmp.Diff(all, got[column]); diff != "" {
				t.Fatalf("column %d: %s", column, diff)
			}
		}
		row := rapid.IntRange(0, len(all)-1).Draw(t, "row")
		if err := g.seek(int64(row)); err != nil {
			t.Fatal(err)
		}
		if _, err := g.readUpTo(1); err != nil {
			t.Fatal(err)
		}
		for column, v := range g.vectors {
			if found := valueOf(&v, 0); found != all[row] {
				t.Fatalf("column %d of row %d: %d instead of %d", column, row, found, all[row])
			}
		}
	})
}

func valueOf(v *vector, i int) int64 {
	if v.codes != nil {
		return v.numbers[v.codes[i]]
	}
	return v.numbers[i]
}

func numbersFile(t rapid.TB, groups [][]int64) []byte {
	var file bytes.Buffer
	w, err := newGroupWriter(&file, numberLayout)
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range groups {
		at := func(i int) int64 { return values[i] }
		err := w.write(func(column int) vector {
			if column < 2 {
				return (&maker{n: len(values)}).plain(at)
			}
			return (&maker{n: len(values)}).coded(at)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
