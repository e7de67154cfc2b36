package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes what the numbers were measured on, as a Markdown list.
func (b *bench) machine() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(b.dir, &fs); err != nil {
		return "", err
	}
	lines := []string{
		fmt.Sprintf("- processor: %s, %d CPUs; memory: %s", field("/proc/cpuinfo", "model name"), runtime.NumCPU(), field("/proc/meminfo", "MemTotal")),
		"- kernel: Linux " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:]),
		"- file system of stores and upper layers: " + fileSystem(fs.Type) + " as mkfs makes it, on a loop device with direct I/O",
		"- " + version(b.plyfs) + ", built with " + runtime.Version(),
		"- " + version("podman") + ", " + version("curl") + ", " + version("gunzip") + ", " + version("sha256sum") + ", " + version("docker-registry"),
		fmt.Sprintf("- date: %s; rounds: %d", time.Now().UTC().Format(time.DateOnly), b.rounds),
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// field is the first value of a name in a file of lines "name : value".
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func fileSystem(magic int64) string {
	switch magic {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("type %#x", magic)
}

var versionNumber = regexp.MustCompile(`\d+\.\d+[^\s,]*`)

// version is a program's name and the version that it says it has.
func version(binary string) string {
	name := filepath.Base(binary)
	out, err := exec.Command(binary, "--version").CombinedOutput()
	if err != nil {
		return name
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if number := versionNumber.FindString(line); number != "" {
		return name + " " + number
	}
	return line
}
