#!/usr/bin/env bash
# Builds a command that asks DuckDB and prints its path. The first time that takes
# a minute and 150 MB of modules (600 MB unpacked); the result is kept in the
# user's cache folder under a hash of the sources here and the Go version. Exit
# status 3: it cannot be had here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=1

missing() {
	printf '%s\n' "$*" >&2
	exit 3
}

key=$({ go env GOVERSION GOOS GOARCH; cat go.mod go.sum main.go build.sh; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/duckdb
dest=$cache/$key
if [ ! -x "$dest/duckdb" ]; then
	# DuckDB is a library of C++.
	for compiler in "$(go env CC)" "$(go env CXX)"; do
		command -v "${compiler%% *}" >/dev/null || missing "DuckDB is not there, and without $compiler it cannot be built"
	done
	go mod download github.com/duckdb/duckdb-go/v2 >&2 || missing "Go cannot fetch DuckDB"
	mkdir -p "$cache"
	# Under its own name until it is whole, so that two builds at once do no harm.
	temp=$(mktemp -d "$cache/.build.XXXXXX")
	trap 'rm -rf "$temp"' EXIT
	nice go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$temp/duckdb" . >&2 || missing "DuckDB cannot be built"
	chmod 755 "$temp"
	mv -T "$temp" "$dest" 2>/dev/null || [ -x "$dest/duckdb" ]
fi
echo "$dest/duckdb"
