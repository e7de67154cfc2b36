// Command userland is the whole userland of the demo's image: one static program that is sh, ls, cat, rm, mkdir and echo,
// by the name that it is called by.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// applets are the programs, by name. Each writes its result to out.
var applets map[string]func(out io.Writer, args []string) error

func init() {
	applets = map[string]func(io.Writer, []string) error{
		"sh": sh, "ls": ls, "cat": cat, "rm": rm, "mkdir": mkdir, "echo": echo,
	}
}

func main() {
	name := filepath.Base(os.Args[0])
	applet, ok := applets[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "userland: no such program: %s\n", name)
		os.Exit(127)
	}
	if err := applet(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// sh runs `sh -c "COMMAND ARGUMENTS [> FILE | >> FILE]; …"`.
func sh(out io.Writer, args []string) error {
	if len(args) != 2 || args[0] != "-c" {
		return errors.New("usage: sh -c COMMANDS")
	}
	for command := range strings.SplitSeq(args[1], ";") {
		if err := shellCommand(out, strings.Fields(command)); err != nil {
			return err
		}
	}
	return nil
}

func shellCommand(out io.Writer, words []string) (err error) {
	if len(words) == 0 {
		return nil
	}
	if n := len(words); n > 2 && (words[n-2] == ">" || words[n-2] == ">>") {
		flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if words[n-2] == ">>" {
			flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
		}
		file, err := os.OpenFile(words[n-1], flags, 0o644)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out, words = file, words[:n-2]
	}
	applet, ok := applets[words[0]]
	if !ok {
		return fmt.Errorf("%s: not found", words[0])
	}
	return applet(out, words[1:])
}

func ls(out io.Writer, args []string) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, dir := range args {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			fmt.Fprintln(out, e.Name())
		}
	}
	return nil
}

func cat(out io.Writer, args []string) error {
	for _, path := range args {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func rm(_ io.Writer, args []string) error {
	for _, path := range args {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

func mkdir(_ io.Writer, args []string) error {
	for _, path := range args {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func echo(out io.Writer, args []string) error {
	_, err := fmt.Fprintln(out, strings.Join(args, " "))
	return err
}
