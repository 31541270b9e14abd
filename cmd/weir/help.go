package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weir-policy/weir/policies"
)

const usage = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} VERB{{if .HasExample}}
  {{.UseLine}}{{end}}{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Verbs:{{range .Commands}}{{if and .IsAvailableCommand (ne .Name "help") (ne .Name "completion")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

{{.CommandPath}} VERB --help says more about a verb{{if not .HasParent}}; {{.CommandPath}} completion --help, how a shell
completes them{{end}}.{{end}}
`

// addHelp gives a command and those below it help pages and errors of one shape.
func addHelp(root *cobra.Command) {
	cobra.EnableCommandSorting = false // the order of their use
	root.SetUsageTemplate(usage)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		hint := "; " + c.CommandPath() + " --help lists them"
		if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
			var names []string
			c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
			hint += policies.Near("--"+unknown.GetSpecifiedName(), names)
		}
		return fmt.Errorf("%w%s", err, hint)
	})
}

// group makes c a command of nothing but others.
func group(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := ""
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = policies.Near(args[0], near)
		}
		return fmt.Errorf("there is no verb %q; %s --help lists them%s", args[0], c.CommandPath(), hint)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	c.SuggestionsMinimumDistance = 2
	return c
}

// takes makes message the answer to fewer arguments than least or more than most.
func takes(least, most int, message string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return errors.New(message)
		}
		return nil
	}
}

// asPlugin makes the pages of c and of those below it show it as kubectl runs it.
func asPlugin(c *cobra.Command) {
	c.Example = strings.ReplaceAll(c.Example, "weir ", "kubectl weir ")
	for _, verb := range c.Commands() {
		asPlugin(verb)
	}
}

// complete says what a shell may complete a flag's value with.
func complete(c *cobra.Command, flag string, values ...string) {
	completeWith(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// completeList is complete for a flag that takes several values with commas.
func completeList(c *cobra.Command, flag string, values ...string) {
	completeWith(c, flag, func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		var all []string
		for _, v := range values {
			all = append(all, before+v)
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	})
}

func completeWith(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // the flag is not there: a mistake in this program
	}
}
