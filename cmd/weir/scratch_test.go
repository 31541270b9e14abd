package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
)

func TestScratchesLeaveNothing(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP"} {
		t.Setenv(name, folder)
	}
	left := func(when string) {
		t.Helper()
		if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
			t.Errorf("%s: %v, %v", when, files, err)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	room := newScratches(ctx.Err)
	var text [5]byte
	for range 2 {
		s, err := room.open()
		if err != nil {
			t.Fatal(err)
		}
		_, errWrite := s.Write([]byte("flows"))
		_, errRead := s.ReadAt(text[:], 0)
		if err := errors.Join(errWrite, errRead); err != nil || string(text[:]) != "flows" {
			t.Fatalf("read %q, %v", text, err)
		}
	}
	if runtime.GOOS != "windows" {
		left("while they are open")
	}
	interrupt()
	for s := range room.all {
		_, errWrite := s.Write(text[:])
		_, errRead := s.ReadAt(text[:], 0)
		if !errors.Is(errWrite, context.Canceled) || !errors.Is(errRead, context.Canceled) {
			t.Errorf("after an interrupt: %v, %v", errWrite, errRead)
		}
	}
	room.close()
	left("when they are closed")
	if len(room.all) > 0 {
		t.Errorf("%d are still open", len(room.all))
	}
}
