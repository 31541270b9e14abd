#!/bin/sh
# Previews the shop's pull request: the report to the terminal, and as a page to
# dist/demo/preview.html. `make demo` builds bin/weir first.
set -eu
cd "$(dirname -- "$0")/../.."

rm -rf dist/demo
mkdir -p dist/demo
sh examples/shop/make-repo.sh dist/demo/shop

bin/weir preview --repo dist/demo/shop --base main --head pr --flows examples/shop/flows.jsonl.gz \
	-o text -o html=dist/demo/preview.html

printf '\nThe same report as a page: %s\n' "$PWD/dist/demo/preview.html"
