//go:build !unix

package flowstore

import "errors"

var errNoSpace = errors.New("no space left")
