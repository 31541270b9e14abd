//go:build !unix

package flowstore

import "errors"

// ErrNoSpace is the error of a disk that is full.
var ErrNoSpace = errors.New("no space left")
