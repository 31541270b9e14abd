package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

func newExplain(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindDecision}
	var questions string
	var trace bool
	c := &cobra.Command{
		Use:   "explain [-f SRC] FROM TO PORT",
		Short: "Say whether one connection is allowed, and by which line",
		Long: `Say whether FROM can open a connection to TO on PORT, with every rule that took
part. FROM and TO are namespace/pod, namespace/workload, namespace/kind/name, a
Service (namespace/svc/name), an address, a CIDR, or world. PORT is 5432,
UDP/53, TCP/8000-8100, a port's name, or any.

The exit status is 0 when the connection is allowed, and 1 when it is denied or
the answer is unknown.

--batch reads questions as JSON lines, {"from":"ns/pod","to":"ns/pod or
address","protocol":"TCP","port":80}, and answers each with a line, in the same
order; the exit status is then 0 whatever the verdicts.`,
		Example: `  weir explain -f examples/shop/deploy storefront/web payments/db 5432
  weir explain -f examples/shop/deploy payments/api payments/svc/db postgres -o json
  weir explain -f examples/shop/deploy world storefront/gateway 8080 --trace
  echo '{"from":"storefront/web","to":"payments/db","port":5432}' | weir explain -f examples/shop/deploy --batch -`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case questions != "" && len(args) > 0:
				return fmt.Errorf("explain --batch takes its questions from %s, not from arguments", questions)
			case questions == "" && len(args) != 3:
				return errors.New("explain takes FROM, TO and PORT, as in: weir explain -f SRC shop/web shop/db 5432")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), readOnce(append(in.files, questions)...)); err != nil {
				return err
			}
			judge, err := in.judge(c.Context(), nil)
			if err != nil {
				return err
			}
			if questions != "" {
				return explainBatch(judge, questions, s)
			}
			d, err := ask(judge, args[0], args[1], args[2])
			if err != nil {
				return err
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				style.Trace = trace
				return report.WriteDecision(w, f, &d, style)
			})
			if err == nil && d.Verdict != policies.Allow {
				err = errNo
			}
			return err
		},
	}
	in.addSourceTo(c)
	out.addTo(c)
	c.Flags().StringVar(&questions, "batch", "", "a `file` of questions, one JSON object a line, or - for standard input")
	c.Flags().BoolVar(&trace, "trace", false, "show every rule that was looked at, in order")
	return c
}

func ask(j *reach.Judge, from, to, port string) (policies.Decision, error) {
	source, errFrom := j.Model().Find(from)
	target, errTo := j.Model().Find(to)
	query, errPort := policies.ParsePort(port)
	if err := errors.Join(errFrom, errTo, errPort); err != nil {
		return policies.Decision{}, err
	}
	return j.Ask(reach.Question{From: source, To: target, Port: query})
}

// explainBatch answers each line of a file with a line. A line that is no
// question is answered by an Error, so that answers stay beside their questions,
// and makes the batch fail at the end.
func explainBatch(j *reach.Judge, name string, s streams) error {
	in := s.in
	if name == "-" {
		name = "standard input"
	} else {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	b := batch{Judge: j, targets: map[string]found{}}
	out := bufio.NewWriterSize(s.out, 1<<16)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	var errs []error
	var answer []byte
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		if d, err := b.answer(lines.Bytes()); err == nil {
			answer = report.AppendDecision(answer[:0], &d)
		} else {
			problem := policies.Problem{Place: policies.Place{File: name, Line: n}, Message: strings.ReplaceAll(err.Error(), "\n", "; ")}
			errs = append(errs, problem)
			answer = report.AppendError(answer[:0], problem)
		}
		if _, err := out.Write(append(answer, '\n')); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", name, err))
	}
	return errors.Join(append(errs, out.Flush())...)
}

// batch remembers what names mean, since questions repeat them.
type batch struct {
	*reach.Judge
	targets map[string]found
}

type found struct {
	target policies.Target
	err    error
}

func (b *batch) answer(line []byte) (policies.Decision, error) {
	var q struct {
		From, To, Protocol string
		Port               json.RawMessage
	}
	err := json.Unmarshal(line, &q)
	if mistyped := (*json.UnmarshalTypeError)(nil); errors.As(err, &mistyped) {
		err = errors.New(strings.TrimSpace(strings.ToLower(mistyped.Field) + " is a JSON " + mistyped.Value))
	}
	if err != nil {
		return policies.Decision{}, fmt.Errorf(`not a question such as {"from":"ns/pod","to":"ns/pod","protocol":"TCP","port":80}: %w`, err)
	}
	port := strings.Trim(string(q.Port), `"`)
	if isNumber := port == "" || port[0] <= '9'; isNumber && q.Protocol != "" && !strings.Contains(port, "/") {
		port = strings.TrimSuffix(q.Protocol+"/"+port, "/")
	}
	query, errPort := policies.ParsePort(port)
	from, errFrom := b.find(q.From)
	to, errTo := b.find(q.To)
	if err := errors.Join(errFrom, errTo, errPort); err != nil {
		return policies.Decision{}, err
	}
	return b.Ask(reach.Question{From: from, To: to, Port: query})
}

func (b *batch) find(text string) (policies.Target, error) {
	f, ok := b.targets[text]
	if !ok {
		f.target, f.err = b.Model().Find(text)
		b.targets[text] = f
	}
	return f.target, f.err
}
