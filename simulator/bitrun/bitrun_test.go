package bitrun

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// run is values that one header stands before: packed ones, or one that repeats.
type run struct {
	values []int32
	packed bool
}

func encode(runs []run, width int) []byte {
	var data []byte
	for _, r := range runs {
		if !r.packed {
			data = binary.AppendUvarint(data, uint64(len(r.values))<<1)
			for i := range (width + 7) / 8 {
				data = append(data, byte(r.values[0]>>(8*i)))
			}
			continue
		}
		data = binary.AppendUvarint(data, uint64(len(r.values)/8)<<1|1)
		bits := make([]byte, len(r.values)*width/8)
		for i, v := range r.values {
			for b := range width {
				bits[(i*width+b)/8] |= byte(v>>b&1) << ((i*width + b) % 8)
			}
		}
		data = append(data, bits...)
	}
	return data
}

// TestValuesComeBackAsTheyWere reads runs of all widths in parts of any size, some
// of which are skipped or counted.
func TestValuesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(0, MaxWidth).Draw(t, "width")
		value := rapid.Int32Range(0, 1<<min(width, 30)-1+int32(max(0, width-30))*(1<<30))
		var runs []run
		var all []int32
		for range rapid.IntRange(0, 6).Draw(t, "runs") {
			r := run{packed: rapid.Bool().Draw(t, "packed")}
			if r.packed {
				n := 8 * rapid.IntRange(1, 40).Draw(t, "groups")
				r.values = rapid.SliceOfN(value, n, n).Draw(t, "values")
			} else {
				r.values = slices.Repeat([]int32{value.Draw(t, "value")}, rapid.IntRange(1, 300).Draw(t, "times"))
			}
			runs, all = append(runs, r), append(all, r.values...)
		}
		r := New(encode(runs, width), width)
		for at := 0; at < len(all); {
			n := min(len(all)-at, rapid.IntRange(1, 300).Draw(t, "part"))
			part := all[at : at+n]
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 5:
				if !r.Fits(1 << 16) {
					continue
				}
				got, want, words := make([]uint64, n), make([]uint64, n), make([]int32, 1<<16)
				for i := range words {
					words[i] = int32(i)*3 - 1
				}
				for i, v := range part {
					got[i], want[i] = 1, uint64(v*3-1)<<7|1
				}
				if !r.Or(got, words, 7) || !slices.Equal(got, want) {
					t.Fatalf("%d values of %d bits at %d: %v instead of %v", n, width, at, got, want)
				}
			case 0:
				if !r.Skip(n) {
					t.Fatalf("no %d values to skip at %d", n, at)
				}
			case 1:
				most := slices.Max(part)
				if most > 1<<16 {
					continue
				}
				counts, want := make([]uint64, most+1), make([]uint64, most+1)
				for _, v := range part {
					want[v]++
				}
				if !r.Count(n, counts) || !slices.Equal(counts, want) {
					t.Fatalf("%d values at %d: %v instead of %v", n, at, counts, want)
				}
			case 2:
				value, are := r.Same(n)
				if !are {
					continue
				}
				if !slices.Equal(slices.Repeat([]int32{value}, n), part) {
					t.Fatalf("%d values at %d: all %d instead of %v", n, at, value, part)
				}
			default:
				got := make([]int32, n)
				if !r.Read(got) || !slices.Equal(got, part) {
					t.Fatalf("%d values of %d bits at %d: %v instead of %v", n, width, at, got, part)
				}
			}
			at += n
		}
		if r.Fits(1<<16) && r.Or(make([]uint64, 1), make([]int32, 1<<16), 0) {
			t.Fatal("there is more than was written")
		}
		if r.Read(make([]int32, 1)) || r.Skip(1) || r.Count(1, make([]uint64, 8)) || are(r.Same(1)) {
			t.Fatal("there is more than was written")
		}
	})
}

func are(_ int32, are bool) bool { return are }

func TestWhatIsWrong(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":                {},
		"a header that goes on":  {0x80},
		"a run without a value":  {8 << 1},
		"packed ones of no byte": {1<<1 | 1},
		"a huge count":           binary.AppendUvarint(nil, 1<<40),
	} {
		if r := New(data, 9); r.Read(make([]int32, 1)) {
			t.Errorf("%s: a value", name)
		}
	}
	if r := New([]byte{4 << 1, 7}, 3); r.Count(4, make([]uint64, 7)) {
		t.Error("a value was counted that has no count")
	}
	if r := New(encode([]run{{make([]int32, 16), true}}, 3)[:4], 3); !r.Read(make([]int32, 8)) || r.Read(make([]int32, 1)) {
		t.Error("packed values that are cut off are read to where they are")
	}
}

// FuzzReader makes sure that data of any kind is read, or not, without panic, and
// that nothing read is negative.
func FuzzReader(f *testing.F) {
	f.Add([]byte{3, 0xff, 0x88, 6, 5}, uint8(17))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		values, counts := make([]int32, n), make([]uint64, 8)
		for width := range MaxWidth + 1 {
			r := New(data, width)
			r.Read(values)
			if n > 0 && slices.Min(values) < 0 {
				t.Errorf("width %d: %v", width, values)
			}
			r = New(data, width)
			r.Count(int(n), counts)
			r = New(data, width)
			r.Skip(int(n))
			if r = New(data, width); r.Fits(1 << 16) {
				r.Or(make([]uint64, n), make([]int32, 1<<16), 0)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, width := range []int{1, 3, 7, 13, 17} {
		values := make([]int32, 1<<20)
		for i := range values {
			values[i] = int32(uint32(i)*2654435761) & (1<<width - 1)
		}
		data, part := encode([]run{{values, true}}, width), make([]int32, 1024)
		b.Run(string(rune('0'+width/10))+string(rune('0'+width%10)), func(b *testing.B) {
			for b.Loop() {
				r := New(data, width)
				for range len(values) / len(part) {
					if !r.Read(part) {
						b.Fatal("it ends early")
					}
				}
			}
			b.ReportMetric(float64(b.N*len(values))/b.Elapsed().Seconds()/1e6, "Mvalues/s")
		})
	}
}

// BenchmarkOr compares words of values in one go with values, their words, and those
// put together, one after the other.
func BenchmarkOr(b *testing.B) {
	for _, width := range []int{2, 9, 13, 17} {
		values, words := make([]int32, 1<<20), make([]int32, 1<<width)
		for i := range values {
			values[i] = int32(uint32(i)*2654435761>>8) & (1<<width - 1)
		}
		data, codes, part := encode([]run{{values, true}}, width), make([]int32, 1024), make([]uint64, 1024)
		for _, inOne := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/one=%t", width, inOne), func(b *testing.B) {
				for b.Loop() {
					r := New(data, width)
					for range len(values) / len(part) {
						if inOne {
							r.Or(part, words, 3)
							continue
						}
						r.Read(codes)
						for i, code := range codes {
							codes[i] = words[code]
						}
						for i, code := range codes {
							part[i] |= uint64(code) << 3
						}
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()/float64(b.N*len(values))*1e9, "ns/value")
			})
		}
	}
}
