package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// sortArgs brings a command line into the form that urfave/cli takes, where options end at the first argument. Users of
// docker write `pull IMAGE --platform P`, -qf for -q -f and -oFILE for -o FILE. An option that a command does not have is
// a usage error.
func sortArgs(app *cli.App, args []string) ([]string, error) {
	sorted := args[:min(1, len(args))]
	rest := args[len(sorted):]
	level := scope{flags: app.Flags, commands: app.Commands}
	for {
		options, after, err := level.leading(rest)
		if err != nil {
			return nil, err
		}
		sorted = append(slices.Clip(sorted), options...)
		if len(after) == 0 {
			return sorted, nil
		}
		command := level.find(after[0])
		if command == nil {
			return append(sorted, after...), nil
		}
		sorted, rest = append(sorted, after[0]), after[1:]
		if command.SkipFlagParsing {
			return append(sorted, rest...), nil
		}
		level = scope{flags: command.Flags, commands: command.Subcommands, command: command}
		if len(level.commands) > 0 {
			continue
		}
		options, arguments, err := level.all(rest)
		if err != nil {
			return nil, err
		}
		if slices.Contains(options, "--help") || slices.Contains(options, "-h") {
			return append(sorted, "--help"), nil // arguments would be taken for topics
		}
		sorted = append(sorted, options...)
		if len(arguments) > 0 {
			sorted = append(append(sorted, "--"), arguments...)
		}
		return sorted, nil
	}
}

// scope is what options and commands are known at one place of the command line.
type scope struct {
	flags    []cli.Flag
	commands []*cli.Command
	command  *cli.Command // nil before any command
}

func (s scope) find(name string) *cli.Command {
	for _, c := range s.commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// leading takes the options that stand before the first argument.
func (s scope) leading(args []string) (options, rest []string, err error) {
	for len(args) > 0 && isOption(args[0]) {
		var taken []string
		if taken, args, err = s.option(args); err != nil {
			return nil, nil, err
		}
		options = append(options, taken...)
	}
	return options, args, nil
}

// all takes the options apart from the arguments, up to a "--".
func (s scope) all(args []string) (options, arguments []string, err error) {
	for len(args) > 0 {
		if args[0] == "--" {
			return options, append(arguments, args[1:]...), nil
		}
		if !isOption(args[0]) {
			arguments, args = append(arguments, args[0]), args[1:]
			continue
		}
		var taken []string
		if taken, args, err = s.option(args); err != nil {
			return nil, nil, err
		}
		options = append(options, taken...)
	}
	return options, arguments, nil
}

func isOption(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && arg != "--"
}

// option takes one option and its value from the front of args.
func (s scope) option(args []string) (taken, rest []string, err error) {
	arg, rest := args[0], args[1:]
	name, isLong := strings.CutPrefix(arg, "--")
	if !isLong {
		return s.cluster(arg, rest)
	}
	name, value, hasValue := strings.Cut(name, "=")
	full, takesValue, known := s.lookup(name)
	if !known {
		return nil, nil, usagef(s.command, "unknown option --%s", name)
	}
	if hasValue {
		return []string{full + "=" + value}, rest, nil
	}
	if !takesValue {
		return []string{full}, rest, nil
	}
	return s.withValue(arg, full, rest)
}

// cluster takes one-letter options that are written as one: -qf, -oFILE, -o=FILE.
func (s scope) cluster(arg string, rest []string) (taken, after []string, err error) {
	for letters := arg[1:]; letters != ""; {
		name := letters[:1]
		letters = letters[1:]
		full, takesValue, known := s.lookup(name)
		switch {
		case !known:
			return nil, nil, usagef(s.command, "unknown option -%s", name)
		case strings.HasPrefix(letters, "="):
			return append(taken, full+letters), rest, nil
		case takesValue && letters != "":
			return append(taken, full, letters), rest, nil
		case takesValue:
			value, after, err := s.withValue("-"+name, full, rest)
			return append(taken, value...), after, err
		}
		taken = append(taken, full)
	}
	return taken, rest, nil
}

func (s scope) withValue(arg, full string, rest []string) (taken, after []string, err error) {
	if len(rest) == 0 {
		return nil, nil, usagef(s.command, "option %s needs a value", arg)
	}
	return []string{full, rest[0]}, rest[1:], nil
}

// lookup tells whether there is such an option, what it is called in full, since urfave/cli takes no two names of one option
// in one command line, and whether a value follows it.
func (s scope) lookup(name string) (full string, takesValue, known bool) {
	for _, f := range s.flags {
		if names := f.Names(); slices.Contains(names, name) {
			d, ok := f.(cli.DocGenerationFlag)
			return "--" + names[0], ok && d.TakesValue(), true
		}
	}
	// urfave/cli adds these itself.
	builtIn := []string{"help", "h"}
	if s.command == nil {
		builtIn = append(builtIn, "version", "v")
	}
	return "--"[:min(2, len(name))] + name, false, slices.Contains(builtIn, name)
}
