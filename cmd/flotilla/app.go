package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// app is what all commands share: the streams and the global options. It is made anew by every run.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	brokers []string
	timeout time.Duration
	output  string
	config  string
}

const rootLong = `Flotilla is a durable, ordered, replayable log: every partition is a Raft group, and an
acknowledged record is on the disks of a quorum.

Options come from the command line, else from the environment, else from a configuration file,
else from the defaults shown. Every option of every command has a variable and a key:

  command line    flotilla topic create orders --partitions 12
  environment     FLOTILLA_TOPIC_CREATE_PARTITIONS=12
  file            topic:
                    create:
                      partitions: 12

The file is YAML, TOML or JSON by its extension and is named by --config or FLOTILLA_CONFIG. Keys in it and
FLOTILLA_* variables that no command knows are refused. Options that destroy something, such as --yes and --execute,
are for the command line only.

` + exitCodesHelp

// run is the program without the process: it parses args, does what they say and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if code == exitFailure && ctx.Err() != nil {
		code = exitInterrupted
	}
	a.reportError(cmd, err, code)
	return code
}

// reportError writes one line for people, or one JSON object, to standard error.
func (a *app) reportError(cmd *cobra.Command, err error, code int) {
	if a.output == outputJSON {
		_ = writeJSON(a.stderr, errorReport{Error: err.Error(), ExitCode: code})
		return
	}
	if code == exitInterrupted {
		fmt.Fprintln(a.stderr, "flotilla: interrupted")
		return
	}
	fmt.Fprintf(a.stderr, "flotilla: %s\n", strings.TrimSpace(err.Error()))
	if code == exitUsage {
		fmt.Fprintf(a.stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
}

type errorReport struct {
	Error    string `json:"error"`
	ExitCode int    `json:"exitCode"`
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "flotilla",
		Short:         "A Raft-replicated distributed log",
		Long:          rootLong,
		Example:       "  flotilla dev --dir ./flotilla-data\n  flotilla topic create orders --partitions 12\n  echo 'hello' | flotilla produce orders\n  flotilla consume orders --from earliest --until end",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.prepare(cmd)
		},
	}
	pf := root.PersistentFlags()
	pf.StringSliceVar(&a.brokers, "brokers", []string{"127.0.0.1:7070"}, "gRPC addresses of brokers (host:port, one that answers is enough)")
	pf.DurationVar(&a.timeout, "timeout", 30*time.Second, "give up on a request after this long")
	pf.StringVarP(&a.output, "output", "o", outputText, "output format: text or json")
	pf.StringVar(&a.config, "config", "", "configuration file (.yaml, .toml or .json)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return withCode(exitUsage, err) })
	root.AddCommand(
		a.brokerCommand(), a.devCommand(), a.healthCommand(),
		a.topicCommand(), a.produceCommand(), a.consumeCommand(), a.groupCommand(), a.clusterCommand(),
		a.logCommand(), a.benchCommand(), a.versionCommand(),
	)
	root.SetOut(a.stdout) // the completion commands keep the writer that they find when they are made
	root.InitDefaultCompletionCmd("completion")
	finish(root)
	return root
}

// prepare runs before every command: it fills in options from the environment and the file, then checks the global ones.
func (a *app) prepare(cmd *cobra.Command) error {
	if isCompletion(cmd) {
		return nil
	}
	if err := applySettings(cmd, environ()); err != nil {
		return withCode(exitUsage, err)
	}
	if formats := outputFormats(cmd); !contains(formats, a.output) {
		got := a.output
		a.output = outputText
		return usageErrorf("unknown output format %q: use %s", got, orList(formats))
	}
	if a.timeout <= 0 {
		return usageErrorf("--timeout is %s: it must be more than 0", a.timeout)
	}
	return nil
}

func isCompletion(cmd *cobra.Command) bool {
	for c := cmd; c != nil; c = c.Parent() {
		switch c.Name() {
		case "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
			return true
		}
	}
	return false
}

// groupOf makes a command that only holds others: alone it shows its help, with an unknown name it is a usage error.
func groupOf(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.AddCommand(subs...)
	return cmd
}

func unknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, sub := range parent.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if near := nearest(name, names); near != "" {
		return usageErrorf("unknown command %q for %q: did you mean %q?", name, parent.CommandPath(), near)
	}
	return usageErrorf("unknown command %q for %q", name, parent.CommandPath())
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	return usageErrorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])
}

// exactArgs wants one argument per name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usageErrorf("%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return usageErrorf("%s takes %d argument(s) (%s), got %q too many", cmd.CommandPath(), len(names), strings.Join(names, ", "), args[len(names)])
		}
		return nil
	}
}

// finish completes the help of every command: a long text where there was only a short one, and where to read about exit codes.
func finish(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		finish(sub)
	}
	if !cmd.HasParent() || isCompletion(cmd) {
		return
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	if !cmd.HasSubCommands() {
		cmd.Long += "\n\nExit codes are listed by 'flotilla --help'."
	}
}
