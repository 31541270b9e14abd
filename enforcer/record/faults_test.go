//go:build linux

package record_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/record"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
)

const killed = "WEIR_RECORD_UNTIL_KILLED"

// A recorder that is killed in the middle of whatever it does, and the one after it,
// record each connection once, and all that it carries.
func TestRealKilled(t *testing.T) {
	netns.Want(t)
	if dir := os.Getenv(killed); dir != "" {
		recordUntilKilled(t, dir)
		return
	}
	s := newScene(t)
	s.options.Window = 20 * time.Millisecond
	files := func() string {
		all, err := filepath.Glob(filepath.Join(s.dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, name := range all {
			if info, err := os.Stat(name); err == nil {
				text += name + info.ModTime().String()
			}
		}
		return text
	}
	var conn *netns.Conversation
	for i := range 6 {
		before := files()
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.Command(program, "-test.run=^TestRealKilled$")
		child.Env = append(os.Environ(), killed+"="+s.dir)
		child.ExtraFiles = []*os.File{s.file()}
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		s.until("the recorder writes", func() bool { return files() != before })
		if i == 0 {
			conn = s.Talk(s.db, s.web, 9000)
		}
		for n := range 3 + i {
			conn.Carries(n%2 == 0, true)
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait()
		conn.Carries(true, true)
	}
	if _, started, ended := s.agrees(); started != 1 || ended != 0 {
		t.Errorf("%d started, %d ended", started, ended)
	}
}

// file returns a file of the node's namespace, for a child.
func (s *scene) file() *os.File {
	s.t.Helper()
	fd, err := unix.Dup(s.FD())
	if err != nil {
		s.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "netns")
	s.t.Cleanup(func() { f.Close() })
	return f
}

func recordUntilKilled(t *testing.T, dir string) {
	g := generationOf(t, shop)
	const inherited = 3
	r, err := record.New(record.Options{Netns: inherited, Node: "n1", LogGroup: 5, Dir: dir, Window: 20 * time.Millisecond, Log: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	r.Enforce(g)
	t.Fatal(r.Run(context.Background()))
}

// Where the disk is full, what is to be written waits; what waits too long is counted;
// and all files are whole.
func TestRealFullDisk(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	if err := unix.Mount("none", s.dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatalf("mount a small disk: %v; run as root, or under unshare -Urnm", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(s.dir, "ballast")
	var said []string
	s.options.Window, s.options.Log = 20*time.Millisecond, func(err error) { said = append(said, err.Error()) }
	r, stop := s.record()
	conn := s.Talk(s.db, s.web, 9000)
	s.until("it records", func() bool { return r.Counts().Records > 0 })
	full, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := full.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	written := r.Counts().Records
	for n := range 20 {
		conn.Carries(n%2 == 0, true)
	}
	s.until("it has looked again", func() bool { return r.Counts().Dumps > 5 })
	if n := r.Counts().Records; n > written+2 {
		t.Errorf("%d records on a full disk", n-written)
	}
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.until("it records again", func() bool { return r.Counts().Records > written })
	stop()
	if _, started, _ := s.agrees(); started != 1 {
		t.Errorf("%d started", started)
	}
	if len(said) == 0 || !strings.Contains(said[0], "no space left on device; they are tried again") {
		t.Errorf("said %q", said)
	}
}

// The stream tells each connection as it begins and ends, and each denial; a reader who
// does not read is dropped.
func TestRealStream(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	s.options.Socket = filepath.Join(t.TempDir(), "agent", "flows.sock")
	r, stop := s.record()
	dial := func() net.Conn {
		conn, err := net.Dial("unix", s.options.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	conn := dial()
	s.until("it has a reader", func() bool { return r.Counts().Readers == 1 })
	s.Arrive([]netns.Probe{{From: s.web, Source: s.web.Addresses[0], Target: s.db.Addresses[0], Protocol: 6, Port: 5432}}, []bool{true})
	s.Forget()
	s.Arrive([]netns.Probe{{From: s.out, Source: s.out.Addresses[0], Target: s.db.Addresses[0], Protocol: 17, Port: 5432}}, []bool{false})
	lines := bufio.NewReader(conn)
	var told []policies.Flow
	for range 3 {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := flowlog.Read(t.Context(), strings.NewReader(line), "stream", flowlog.Options{Strict: true}, func(f policies.Flow) error {
			told = append(told, f)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !(told[0].Started == 1 && told[0].Ended == 0 && told[1].Ended == 1 && told[1].Packets > 0 && told[2].Verdict == policies.Deny) {
		t.Errorf("told %+v", told)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.until("the reader is gone", func() bool { return r.Counts().Readers == 0 })
	slow := dial()
	s.until("it has a reader again", func() bool { return r.Counts().Readers == 1 })
	probe := netns.Probe{From: s.web, Source: s.web.Addresses[0], Target: s.db.Addresses[0], Protocol: 17, Port: 53}
	many := make([]netns.Probe, 2000)
	should := make([]bool, len(many))
	for i := range many {
		many[i], should[i] = probe, true
	}
	for r.Counts().Slow == 0 && !t.Failed() {
		s.Arrive(many, should)
		s.Forget()
	}
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := os.Stat(s.options.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
