package repo

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/weir-policy/weir/policies"
)

// Commit is one commit of a Repo.
type Commit struct {
	Hash    string // 40 hexadecimal digits
	Subject string // the first line of the message
	tree    plumbing.Hash
}

// Short returns the first 12 digits of the hash.
func (c Commit) Short() string { return c.Hash[:12] }

// Resolve returns the commit that a revision means: HEAD, a branch, a tag, a
// remote branch, a whole or abbreviated hash, each with ^ and ~ behind it. A
// branch that is not there is looked for at the remote origin, and then at the
// others, for that is where a checkout in a pipeline has it.
func (r *Repo) Resolve(rev string) (Commit, error) {
	name, steps := rev, ""
	if i := strings.IndexAny(rev, "^~"); i >= 0 {
		name, steps = rev[:i], rev[i:]
	}
	if strings.Contains(name, "@{") || strings.Contains(name, ":") {
		return Commit{}, fmt.Errorf("revision %q: name a branch, a tag or a commit; reflogs, upstreams and paths are not understood", rev)
	}
	if name == "@" {
		name = "HEAD"
	}
	hash, err := r.lookup(name)
	if err != nil {
		return Commit{}, err
	}
	c, err := r.commit(rev, hash)
	for steps != "" && err == nil {
		c, steps, err = r.step(c, steps)
	}
	switch {
	case errors.Is(err, errTooFar), errors.Is(err, errShallow), errors.Is(err, errStep):
		return Commit{}, fmt.Errorf("revision %q: %w", rev, err)
	case err != nil:
		return Commit{}, err
	}
	return toCommit(c), nil
}

var (
	errTooFar = errors.New("the history does not go that far back")
	errStep   = errors.New("only ^, ^N and ~N are understood behind a name")
	step      = regexp.MustCompile(`^(?:\^\{(?:commit)?\}|[\^~][0-9]{0,9})`)
)

// step takes the first of the steps, such as ^2 or ~3, and returns the others.
func (r *Repo) step(c *object.Commit, steps string) (*object.Commit, string, error) {
	first := step.FindString(steps)
	rest := steps[len(first):]
	if first == "" || rest != "" && !strings.ContainsAny(rest[:1], "^~") {
		return nil, "", errStep
	}
	count, err := strconv.Atoi(first[1:])
	if err != nil {
		count = 1
	}
	switch {
	case strings.HasPrefix(first, "^{"), count == 0:
	case first[0] == '^':
		c, err = r.parent(c, count)
		return c, rest, err
	default:
		for range count {
			if c, err = r.parent(c, 1); err != nil {
				return nil, "", err
			}
		}
	}
	return c, rest, nil
}

// parent returns the nth parent, counted from 1.
func (r *Repo) parent(c *object.Commit, n int) (*object.Commit, error) {
	if n > len(c.ParentHashes) {
		return nil, errTooFar
	}
	parent, err := r.git.CommitObject(c.ParentHashes[n-1])
	if errors.Is(err, plumbing.ErrObjectNotFound) && r.IsShallow() {
		return nil, errShallow
	}
	return parent, err
}

// commit returns the commit with the hash, or the one that a tag of that hash
// leads to.
func (r *Repo) commit(rev string, hash plumbing.Hash) (*object.Commit, error) {
	for {
		tag, err := object.GetTag(r.store, hash)
		if err != nil {
			break
		}
		hash = tag.Target
	}
	c, err := object.GetCommit(r.store, hash)
	switch {
	case err == nil:
		return c, nil
	case r.store.HasEncodedObject(hash) == nil:
		return nil, fmt.Errorf("revision %q is not a commit", rev)
	}
	return nil, fmt.Errorf("revision %q: commit %s is not in the repository; fetch it first", rev, hash)
}

func toCommit(c *object.Commit) Commit {
	subject, _, _ := strings.Cut(c.Message, "\n")
	return Commit{Hash: c.Hash.String(), Subject: subject, tree: c.TreeHash}
}

var hexadecimal = regexp.MustCompile(`^[0-9a-f]{4,40}$`)

// lookup finds a name in git's own order: a whole hash, a reference, an
// abbreviated hash.
func (r *Repo) lookup(name string) (plumbing.Hash, error) {
	lower := strings.ToLower(name)
	if len(lower) == 40 && hexadecimal.MatchString(lower) {
		return plumbing.NewHash(lower), nil
	}
	if name != "" {
		rules := []string{"%s", "refs/%s", "refs/tags/%s", "refs/heads/%s", "refs/remotes/%s", "refs/remotes/%s/HEAD", "refs/remotes/origin/%s"}
		for _, remote := range r.remotes() {
			rules = append(rules, "refs/remotes/"+remote+"/%s")
		}
		for _, rule := range rules {
			if hash, ok := r.reference(plumbing.ReferenceName(fmt.Sprintf(rule, name))); ok {
				return hash, nil
			}
		}
	}
	if hexadecimal.MatchString(lower) {
		var found []plumbing.Hash
		hashes, err := r.store.HashesWithPrefix(decodeHex(lower))
		if err != nil {
			return plumbing.ZeroHash, fmt.Errorf("revision %q: %w", name, err)
		}
		for _, hash := range hashes {
			if strings.HasPrefix(hash.String(), lower) && r.isCommitish(hash) {
				found = append(found, hash)
			}
		}
		slices.SortFunc(found, func(a, b plumbing.Hash) int { return strings.Compare(a.String(), b.String()) })
		found = slices.Compact(found)
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return plumbing.ZeroHash, fmt.Errorf("revision %q is short for %d commits; write more of the hash", name, len(found))
		}
	}
	return plumbing.ZeroHash, r.unknown(name)
}

// decodeHex returns the whole bytes that the digits begin with.
func decodeHex(digits string) []byte {
	padded := plumbing.NewHash(digits + strings.Repeat("0", 40-len(digits)))
	return padded[:len(digits)/2]
}

func (r *Repo) isCommitish(hash plumbing.Hash) bool {
	o, err := r.store.EncodedObject(plumbing.AnyObject, hash)
	return err == nil && (o.Type() == plumbing.CommitObject || o.Type() == plumbing.TagObject)
}

func (r *Repo) reference(name plumbing.ReferenceName) (plumbing.Hash, bool) {
	if name.Validate() != nil {
		return plumbing.ZeroHash, false
	}
	ref, err := r.git.Reference(name, true)
	if err != nil {
		return plumbing.ZeroHash, false
	}
	return ref.Hash(), true
}

func (r *Repo) remotes() []string {
	cfg, err := r.store.Config()
	if err != nil {
		return nil
	}
	var names []string
	for name := range cfg.Remotes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

const suggestions = 5

// unknown is the error for a name that is no revision; it names those that are
// most like it.
func (r *Repo) unknown(name string) error {
	var names []string
	if refs, err := r.git.References(); err == nil {
		_ = refs.ForEach(func(ref *plumbing.Reference) error {
			if n := ref.Name(); n.IsBranch() || n.IsTag() || n.IsRemote() && !strings.HasSuffix(n.String(), "/HEAD") {
				names = append(names, n.Short())
			}
			return nil
		})
	}
	if len(names) == 0 {
		return fmt.Errorf("revision %q: the repository %s has no commits", name, r.dir)
	}
	likeness := map[string]int{}
	for _, n := range names {
		likeness[n] = min(policies.Distance(name, n), policies.Distance(name, n[strings.LastIndex(n, "/")+1:]))
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(likeness[a], likeness[b]), strings.Compare(a, b))
	})
	names = slices.Compact(names)
	more := ""
	if len(names) > suggestions {
		more = fmt.Sprintf(" and %d more", len(names)-suggestions)
		names = names[:suggestions]
	}
	err := fmt.Errorf("revision %q is not in the repository %s, which has %s%s", name, r.dir, strings.Join(names, ", "), more)
	if r.IsShallow() {
		err = fmt.Errorf("%w; it is a shallow clone: %s", err, Unshallow)
	}
	return err
}

// Unshallow is the cure for what a shallow clone lacks.
const Unshallow = "fetch the whole history with fetch-depth: 0 (actions/checkout) or git fetch --unshallow"

var errShallow = errors.New("it is beyond the end of this shallow clone; " + Unshallow)

// IsShallow says whether history, and often every other branch, was left out
// when the repository was cloned.
func (r *Repo) IsShallow() bool {
	boundary, err := r.store.Shallow()
	return err == nil && len(boundary) > 0
}

// What a walk knows about a commit.
const (
	fromA = 1 << iota
	fromB
	stale // below a common ancestor that was already found
)

// MergeBase returns the best common ancestor of two commits, and the newest one
// where several are equally good.
func (r *Repo) MergeBase(a, b Commit) (Commit, error) {
	boundary := map[plumbing.Hash]bool{}
	shallow, err := r.store.Shallow()
	if err != nil {
		return Commit{}, err
	}
	for _, hash := range shallow {
		boundary[hash] = true
	}

	var queue newestFirst
	flags, read := map[plumbing.Hash]int{}, map[plumbing.Hash]*object.Commit{}
	visit := func(hash plumbing.Hash, flag int) error {
		if flags[hash]&flag == flag {
			return nil
		}
		c, err := r.git.CommitObject(hash)
		if err != nil {
			return fmt.Errorf("commit %s: %w", hash, err)
		}
		flags[hash] |= flag
		read[hash] = c
		heap.Push(&queue, c)
		return nil
	}
	if err := errors.Join(visit(plumbing.NewHash(a.Hash), fromA), visit(plumbing.NewHash(b.Hash), fromB)); err != nil {
		return Commit{}, err
	}
	var found []plumbing.Hash
	cut := false
	for slices.ContainsFunc(queue, func(c *object.Commit) bool { return flags[c.Hash]&stale == 0 }) {
		c := heap.Pop(&queue).(*object.Commit)
		flag := flags[c.Hash]
		if flag&(fromA|fromB) == fromA|fromB {
			if flag&stale == 0 && !slices.Contains(found, c.Hash) {
				found = append(found, c.Hash)
			}
			flag |= stale
		}
		if boundary[c.Hash] {
			cut = true
			continue
		}
		for _, parent := range c.ParentHashes {
			err := visit(parent, flag)
			if errors.Is(err, plumbing.ErrObjectNotFound) {
				cut = true
			} else if err != nil {
				return Commit{}, err
			}
		}
	}
	found = slices.DeleteFunc(found, func(hash plumbing.Hash) bool { return flags[hash]&stale != 0 })
	switch {
	case len(found) > 0:
		return toCommit(read[found[0]]), nil
	case cut:
		return Commit{}, fmt.Errorf("merge base of %s and %s: %w", a.Short(), b.Short(), errShallow)
	}
	return Commit{}, fmt.Errorf("merge base of %s and %s: their histories have no commit in common; name the base with --base", a.Short(), b.Short())
}

// newestFirst is a heap of commits, the newest on top.
type newestFirst []*object.Commit

func (q newestFirst) Len() int      { return len(q) }
func (q newestFirst) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q newestFirst) Less(i, j int) bool {
	return cmp.Or(q[j].Committer.When.Compare(q[i].Committer.When), strings.Compare(q[i].Hash.String(), q[j].Hash.String())) < 0
}
func (q *newestFirst) Push(c any) { *q = append(*q, c.(*object.Commit)) }
func (q *newestFirst) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
