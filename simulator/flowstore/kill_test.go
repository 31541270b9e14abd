package flowstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

// childStore names the store that the test binary, started by itself, is to
// write to until it is killed.
const childStore = "WEIR_TEST_STORE"

// child imports files again and again, compacts in between, and says which
// flows are acknowledged.
func child(where string) {
	ctx := context.Background()
	s, err := Open(ctx, where, Options{Memory: 1 << 18, Grace: time.Nanosecond})
	if err != nil {
		panic(err)
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("part-%06d", n) // also what stands in it: none may begin as another
		done, err := s.Import(ctx, name, "as ever", strings.NewReader(name), func(each func(policies.Flow) error) (bool, error) {
			for _, f := range generate(small(uint64(n)), 1500) {
				if err := each(f); err != nil {
					return false, err
				}
			}
			return false, nil
		})
		if err != nil {
			panic(err)
		}
		if done.Added > 0 || done.Known > 0 {
			fmt.Println(n)
		}
		if n%2 == 1 && done.Added > 0 {
			if _, err := s.Compact(ctx, long, nil); err != nil && !errors.Is(err, errOvertaken) {
				panic(err)
			}
		}
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	where := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	acknowledged := -1
	for range 8 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), childStore+"="+where)
		var out, problems bytes.Buffer
		pipe, err := command.StdoutPipe()
		command.Stderr = &problems
		if err = errors.Join(err, command.Start()); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(20+random.IntN(500))*time.Millisecond, func() { command.Process.Kill() })
		io.Copy(&out, pipe)
		command.Wait()
		timer.Stop()
		if problems.Len() > 0 {
			t.Fatal(problems.String())
		}
		for _, line := range strings.Fields(out.String()) {
			var n int
			fmt.Sscan(line, &n)
			acknowledged = max(acknowledged, n)
		}
		s := openStore(t, where, Options{})
		verify(t, s)
		got := map[string]int{}
		for _, f := range all(t, s, simulator.Filter{}) {
			got[fmt.Sprintf("%+v", f)]++
		}
		want := map[string]int{}
		for n := range acknowledged + 1 {
			for _, f := range generate(small(uint64(n)), 1500) {
				want[fmt.Sprintf("%+v", f)]++
			}
		}
		// What was committed without having been acknowledged is the next file, or a part of it.
		next := map[string]int{}
		for _, f := range generate(small(uint64(acknowledged+1)), 1500) {
			next[fmt.Sprintf("%+v", f)]++
		}
		for text, n := range want {
			if got[text] < n || got[text] > n+next[text] {
				t.Fatalf("%d times instead of %d: %s", got[text], n, text)
			}
		}
		for text, n := range got {
			if n > want[text]+next[text] {
				t.Fatalf("%d times instead of %d: %s", n, want[text], text)
			}
		}
	}
	if acknowledged < 1 {
		t.Fatal("nothing was imported before the process was killed")
	}
	s := openStore(t, where, Options{Grace: time.Nanosecond})
	compact(t, s, long)
	verify(t, s)
	if left, _ := filepath.Glob(filepath.Join(where, "v1", "tmp", "*")); len(left) > 0 {
		t.Errorf("%d files are left in tmp", len(left))
	}
}
