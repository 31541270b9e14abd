package main

import (
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

func newReplay(s streams) *cobra.Command {
	in, out, flows := input{streams: s}, output{streams: s, kind: report.KindReplay}, flowFiles{}
	span := replaySpan{choice{streams: s}}
	failOn := failures{known: []preview.Condition{preview.Breaks, preview.Opens, preview.Drifts, preview.Unknowns}}
	c := &cobra.Command{
		Use:   "replay --flows FILE SRC [SRC]",
		Short: "Decide recorded flows again, under one or two sets of policies",
		Long: `With one source: how far the model's answers agree with what was recorded. With
two: which recorded flows would break or open between the first and the second,
and by which line.`,
		Example: `  weir replay --flows examples/shop/flows.jsonl.gz examples/shop/deploy
  weir replay --flows 'examples/shop/*.jsonl.gz' git:main:examples/shop/deploy examples/shop/deploy --fail-on breaks`,
		Args: takes(1, 2, "replay takes one source or two, as in: weir replay --flows flows.jsonl.gz git:main git:HEAD"),
		RunE: func(c *cobra.Command, args []string) error {
			conditions, err := failOn.conditions()
			if err != nil {
				return err
			}
			if err := errors.Join(out.check(), readOnce(slices.Concat(args, flows.patterns)...)); err != nil {
				return err
			}
			recorded, stats, err := span.store(c.Context(), &flows)
			if err != nil {
				return err
			}
			var files []string
			if recorded == nil {
				if files, err = flows.files(); err != nil {
					return err
				}
				if len(files) == 0 {
					return errors.New("replay needs recorded flows; name them as in --flows flows.jsonl.gz")
				}
			}
			var before, after *reach.Judge
			if len(args) == 2 {
				before, after, err = in.pair(c.Context(), args[0], args[1])
			} else {
				before, err = in.judge(c.Context(), args)
			}
			if err != nil {
				return err
			}
			room := newScratches(c.Context().Err)
			defer room.close()
			replay := simulator.New(before, after)
			replay.Spill(room.open, 0)
			if recorded != nil {
				err = replay.Replay(c.Context(), recorded)
			} else {
				stats, err = span.read(c.Context(), &flows, s, files, simulator.Together(replay))
			}
			if err != nil {
				return err
			}
			result := replay.Result()
			reading := preview.Reading(stats)
			if recorded != nil {
				reading = preview.RecordedReading(result, stats)
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteReplay(w, f, result, reading, style)
			})
			if err == nil && len(preview.Failed(conditions, nil, result)) > 0 {
				err = errNo
			}
			return err
		},
	}
	in.addTo(c)
	out.addTo(c)
	flows.addTo(c)
	span.addTo(c)
	failOn.addTo(c, "none")
	return c
}
