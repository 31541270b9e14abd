#!/bin/sh
# Makes a Git repository of the shop in DIR: the deploy tree on branch main, and
# the edit of examples/shop/pull-request on branch pr, which is left checked out.
# Authors and dates are fixed, so the commits have the same hashes everywhere.
#
#   make-repo.sh DIR    DIR must be empty, or not there yet
set -eu

if [ $# -ne 1 ]; then
	echo "usage: make-repo.sh DIR" >&2
	exit 2
fi
if [ -e "$1" ] && { [ ! -d "$1" ] || [ -n "$(ls -A -- "$1")" ]; }; then
	echo "make-repo.sh: $1 is not an empty folder; remove it, or name another" >&2
	exit 2
fi
shop=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
umask 022
mkdir -p -- "$1"
CDPATH='' cd -- "$1"

# Nothing of the caller's own Git set-up may leak into the repository.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_NAMESPACE GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_DEFAULT_HASH=sha1

# commit NAME DATE MESSAGE
commit() {
	git add --all
	GIT_AUTHOR_NAME=$1 GIT_AUTHOR_EMAIL=$(echo "$1" | tr 'A-Z ' 'a-z.')@shop.example GIT_AUTHOR_DATE=$2 \
		GIT_COMMITTER_NAME=$1 GIT_COMMITTER_EMAIL=$(echo "$1" | tr 'A-Z ' 'a-z.')@shop.example GIT_COMMITTER_DATE=$2 \
		git commit --quiet --message "$3"
}

git init --quiet --template=
git symbolic-ref HEAD refs/heads/main
cp -R "$shop/deploy/." .
commit "Imke Verhoeven" 2026-03-02T09:12:00Z "deploy the shop"

git checkout --quiet -b pr
cp -R "$shop/pull-request/." .
commit "Tomas Hale" 2026-03-11T15:40:00Z "catalog: load pictures from the CDN

The pictures move from the cache to the content delivery network at
198.51.100.0/24, so catalog may reach that, and no longer needs the cache."
