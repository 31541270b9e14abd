//go:build unix

package flowstore

import "syscall"

// ErrNoSpace is the error of a disk that is full.
var ErrNoSpace error = syscall.ENOSPC
