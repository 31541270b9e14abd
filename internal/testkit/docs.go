package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Docs runs the commands that README.md, docs/*.md and the READMEs under
// examples show in blocks fenced as sh: weir, and scripts of examples. It fails
// where one does not end with the exit status it should: 0, or the one that a
// comment on the command's line or on the line above it names:
//
//	weir explain -f examples/shop shop/cart shop/db 5432   # exit 1: denied
//
// A command may be continued with a backslash, read from or write to a pipe or
// a file, and set variables before its name. It runs in a copy of the module's
// README.md, docs and examples, a fresh one for each document. Lines that set a
// variable or change the folder hold for the rest of their block; other lines,
// such as `make demo`, do not run.
//
// weir must be on PATH, as testscript.Main puts it there. prepare, unless nil,
// adds to a document's folder what its commands need, such as a repository.
func Docs(t *testing.T, prepare func(t *testing.T, dir string)) {
	t.Helper()
	root := os.DirFS(Root(t))
	documents, err := documents(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range documents {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := shellCommands(name, string(text))
		if len(blocks) == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := copyShown(dir, root); err != nil {
				t.Fatal(err)
			}
			if prepare != nil {
				prepare(t, dir)
			}
			for _, commands := range blocks {
				if err := runBlock(dir, commands); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// documents lists the files whose commands must work.
func documents(root fs.FS) ([]string, error) {
	var names []string
	for _, pattern := range []string{"README.md", "docs/*.md"} {
		found, err := fs.Glob(root, pattern)
		if err != nil {
			return nil, err
		}
		names = append(names, found...)
	}
	err := fs.WalkDir(root, "examples", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && path.Base(name) == "README.md" {
			names = append(names, name)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return names, err
}

// copyShown copies what a reader of the documents has before them into dir.
func copyShown(dir string, root fs.FS) error {
	for _, name := range []string{"README.md", "docs", "examples"} {
		err := fs.WalkDir(root, name, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := filepath.Join(dir, filepath.FromSlash(name))
			if entry.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			return os.WriteFile(to, text, info.Mode().Perm())
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// command is a line that runs, with those that continue it.
type command struct {
	at   string // document:line
	text string
	runs bool // on its own; otherwise it sets the scene for those below it
	exit int  // the status that it must end with
}

var (
	shellBlock  = regexp.MustCompile("(?ms)^[ \t]*```sh[ \t]*\n(.*?)^[ \t]*```")
	shellLine   = regexp.MustCompile(`(?:[^\n]*\\\n)*[^\n]*\n`) // with those that a backslash joins to it
	ownCommand  = regexp.MustCompile(`(?m)(?:^|[|;&(]\s*)(?:[A-Z_]+=\S*\s+)*(?:weir|examples/\S+\.sh)(?:\s|$)`)
	sceneLine   = regexp.MustCompile(`^(?:cd\s|(?:export\s+)?[A-Za-z_]+=\S*\s*(?:#.*)?$)`)
	exitComment = regexp.MustCompile(`(?m)(?:^|\s)#.*\bexit(?:s| status)? ([0-9]+)\b`)
)

// shellCommands returns for each block fenced as sh the lines in it that run.
func shellCommands(document, text string) [][]command {
	var blocks [][]command
	for _, found := range shellBlock.FindAllStringSubmatchIndex(text, -1) {
		var commands []command
		number := 1 + strings.Count(text[:found[2]], "\n")
		announced := 0
		for _, row := range shellLine.FindAllString(text[found[2]:found[3]], -1) {
			c := command{at: fmt.Sprintf("%s:%d", document, number), text: strings.TrimSpace(row), exit: announced}
			number += strings.Count(row, "\n")
			announced = 0
			comment := strings.HasPrefix(c.text, "#")
			c.runs = !comment && ownCommand.MatchString(c.text)
			if m := exitComment.FindStringSubmatch(c.text); m != nil {
				c.exit, _ = strconv.Atoi(m[1])
				if comment {
					announced = c.exit
				}
			}
			if c.runs || sceneLine.MatchString(c.text) {
				commands = append(commands, c)
			}
		}
		blocks = append(blocks, commands)
	}
	return blocks
}

// runBlock runs the commands of a block in dir and returns an error for each
// that ended otherwise than it should.
func runBlock(dir string, commands []command) error {
	var problems []error
	scene := ""
	for _, c := range commands {
		if !c.runs {
			scene += c.text + "\n"
			continue
		}
		shell := exec.Command("sh", "-c", scene+c.text)
		shell.Dir = dir
		shell.Env = append(os.Environ(), "NO_COLOR=1")
		output, err := shell.CombinedOutput()
		if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
			return fmt.Errorf("%s: %w", c.at, err)
		}
		if status := shell.ProcessState.ExitCode(); status != c.exit {
			problems = append(problems, fmt.Errorf("%s: exit status %d instead of %d: %s\n%s",
				c.at, status, c.exit, c.text, bytes.TrimSpace(output)))
		}
	}
	return errors.Join(problems...)
}
