//go:build unix

package flowstore

import "syscall"

var errNoSpace error = syscall.ENOSPC
