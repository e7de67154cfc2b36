package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrChange says that a text is no instruction of a Dockerfile by which a config can be changed.
var ErrChange = errors.New("bad change")

const (
	maxChanges = 1 << 20 // bytes of all changes of one command, and of one value once it is expanded
	minProbe   = time.Millisecond
)

// runConfig is how a container of an image is run: the OCI fields and those that docker has besides.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#image-json-field-descriptions
type runConfig struct {
	ocispec.ImageConfig
	Healthcheck *healthcheck `json:",omitempty"`
	OnBuild     []string     `json:",omitempty"`
}

// healthcheck is docker's; its times are nanoseconds, 0 being docker's default.
type healthcheck struct {
	Test          []string      // "NONE", or "CMD" and arguments, or "CMD-SHELL" and a line
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// changers are the instructions that `docker import --change` takes, with what follows the name of each.
var changers = map[string]func(c *runConfig, rest string) error{
	"CMD":         func(c *runConfig, rest string) error { return setCommand(&c.Cmd, rest) },
	"ENTRYPOINT":  func(c *runConfig, rest string) error { return setCommand(&c.Entrypoint, rest) },
	"ENV":         changeEnv,
	"EXPOSE":      changeExpose,
	"HEALTHCHECK": changeHealthcheck,
	"LABEL":       changeLabel,
	"ONBUILD":     changeOnBuild,
	"STOPSIGNAL":  changeStopSignal,
	"USER":        changeUser,
	"VOLUME":      changeVolume,
	"WORKDIR":     changeWorkdir,
}

func changeErrorf(format string, args ...any) error {
	return &kindError{kind: ErrChange, msg: fmt.Sprintf(format, args...)}
}

// applyChanges changes a config by instructions as a Dockerfile has them, each text being one or more lines.
// https://docs.docker.com/reference/dockerfile/
func applyChanges(c *runConfig, changes []string) error {
	text := strings.Join(changes, "\n")
	if len(text) > maxChanges {
		return changeErrorf("the changes have more than %d bytes", maxChanges)
	}
	for line := range instructions(text) {
		name, rest := cutWord(line)
		change, ok := changers[strings.ToUpper(name)]
		if !ok {
			return changeErrorf("%q is not a valid change command: use one of %s", clean(name), strings.Join(slices.Sorted(maps.Keys(changers)), ", "))
		}
		if rest == "" {
			return changeErrorf("%s requires an argument", strings.ToUpper(name))
		}
		if err := change(c, rest); err != nil {
			return fmt.Errorf("%s: %w", strings.ToUpper(name), err)
		}
	}
	return nil
}

// instructions gives the lines of a Dockerfile: without comments and empty ones, those that end in a backslash joined with
// the next.
func instructions(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var b strings.Builder
		for line := range strings.SplitSeq(text, "\n") {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if part, more := strings.CutSuffix(line, `\`); more {
				b.WriteString(part)
				continue
			}
			b.WriteString(line)
			if !yield(b.String()) {
				return
			}
			b.Reset()
		}
		if line := strings.TrimSpace(b.String()); line != "" {
			yield(line)
		}
	}
}

// cutWord takes the first word off a text that does not begin with a blank.
func cutWord(text string) (word, rest string) {
	i := strings.IndexAny(text, " \t")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimSpace(text[i:])
}

// command reads a command in the exec form, a JSON array, or in the shell form, any other text.
func command(rest string) (args []string, shell bool) {
	if args, ok := jsonWords(rest); ok {
		return args, false
	}
	return []string{"/bin/sh", "-c", rest}, true
}

func jsonWords(text string) ([]string, bool) {
	args := []string{}
	if !strings.HasPrefix(text, "[") || json.Unmarshal([]byte(text), &args) != nil {
		return nil, false
	}
	return args, true
}

func setCommand(to *[]string, rest string) error {
	*to, _ = command(rest)
	return nil
}

func changeEnv(c *runConfig, rest string) error {
	pairs, err := keyValues(rest, c.Env)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		entry := p[0] + "=" + p[1]
		i := slices.IndexFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") })
		if i < 0 {
			c.Env = append(c.Env, entry)
		} else {
			c.Env[i] = entry
		}
	}
	return nil
}

func changeLabel(c *runConfig, rest string) error {
	pairs, err := keyValues(rest, c.Env)
	if err != nil {
		return err
	}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		c.Labels[p[0]] = p[1]
	}
	return nil
}

// changeExpose takes PORT[-PORT][/PROTOCOL]...
func changeExpose(c *runConfig, rest string) error {
	list, err := words(rest, c.Env)
	if err != nil {
		return err
	}
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for _, w := range list {
		ports, proto, found := strings.Cut(w, "/")
		if !found {
			proto = "tcp"
		}
		if proto = strings.ToLower(proto); proto != "tcp" && proto != "udp" && proto != "sctp" {
			return changeErrorf("invalid proto: %s", clean(proto))
		}
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || from > to {
			return changeErrorf("invalid containerPort: %s", clean(w))
		}
		for p := from; p <= to; p++ {
			c.ExposedPorts[strconv.FormatUint(p, 10)+"/"+proto] = struct{}{}
		}
	}
	return nil
}

func changeVolume(c *runConfig, rest string) error {
	list, ok := jsonWords(rest)
	if !ok {
		var err error
		if list, err = words(rest, c.Env); err != nil {
			return err
		}
	}
	if c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return changeErrorf("VOLUME specified can not be an empty string")
		}
		c.Volumes[v] = struct{}{}
	}
	return nil
}

func changeUser(c *runConfig, rest string) (err error) {
	c.User, err = oneWord(rest, c.Env)
	return err
}

// changeWorkdir takes a path, which if relative goes on from the one before.
func changeWorkdir(c *runConfig, rest string) error {
	dir, err := expand(rest, c.Env)
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", c.WorkingDir, dir)
	}
	c.WorkingDir = path.Clean(dir)
	return nil
}

func changeStopSignal(c *runConfig, rest string) error {
	s, err := oneWord(rest, c.Env)
	if err != nil {
		return err
	}
	if !isSignal(s) {
		return changeErrorf("invalid signal: %s", clean(s))
	}
	c.StopSignal = s
	return nil
}

// changeOnBuild keeps an instruction for images made of this one.
func changeOnBuild(c *runConfig, rest string) error {
	trigger, _ := cutWord(rest)
	switch strings.ToUpper(trigger) {
	case "ONBUILD":
		return changeErrorf("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return changeErrorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(trigger))
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

// changeHealthcheck takes NONE, or options and CMD with a command.
func changeHealthcheck(c *runConfig, rest string) error {
	h := &healthcheck{}
	for strings.HasPrefix(rest, "--") {
		option, after := cutWord(rest)
		if err := h.option(option); err != nil {
			return err
		}
		rest = after
	}
	kind, line := cutWord(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		if line != "" {
			return changeErrorf("HEALTHCHECK NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		args, shell := command(line)
		switch {
		case line == "" || len(args) == 0:
			return changeErrorf("missing command after HEALTHCHECK CMD")
		case shell:
			h.Test = []string{"CMD-SHELL", line}
		default:
			h.Test = append([]string{"CMD"}, args...)
		}
	default:
		return changeErrorf("unknown type %q: use CMD or NONE", clean(kind))
	}
	c.Healthcheck = h
	return nil
}

func (h *healthcheck) option(option string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
	times := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}
	if to := times[name]; to != nil {
		d, err := time.ParseDuration(value)
		if err != nil || d != 0 && d < minProbe {
			return changeErrorf("--%s=%s is no duration of at least %s, as 30s or 1m30s is", name, clean(value), minProbe)
		}
		*to = d
		return nil
	}
	if name != "retries" {
		return changeErrorf("unknown flag: --%s", clean(name))
	}
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil || n < 0 {
		return changeErrorf("--retries=%s: not 0 or more", clean(value))
	}
	h.Retries = int(n)
	return nil
}
