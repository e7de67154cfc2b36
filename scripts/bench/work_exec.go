package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func inOrder(steps ...func(*job) error) func(*job) error {
	return func(j *job) error {
		for _, step := range steps {
			if err := step(j); err != nil {
				return err
			}
		}
		return nil
	}
}

func times(n int, step func(*job) error) func(*job) error {
	return func(j *job) error {
		for range n {
			if err := step(j); err != nil {
				return err
			}
		}
		return nil
	}
}

// program runs a program of the image, whose root this process is in.
func program(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "TMPDIR=/tmp",
		"GIT_CONFIG_COUNT=4", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		// No git in the background, which would be in the way of the next measurement and of unmounting.
		"GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0", "GIT_CONFIG_KEY_2=maintenance.auto", "GIT_CONFIG_VALUE_2=false",
		// Making the repository is not measured and need not outlive a power cut.
		"GIT_CONFIG_KEY_3=core.fsync", "GIT_CONFIG_VALUE_3=none",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func python(*job) error {
	return program("/usr/bin/python3", "-B", "-c",
		"import json, ssl, sqlite3, email.message, http.client, asyncio, logging, argparse, xml.etree.ElementTree, unittest")
}

func writeProgram(j *job) error {
	text := "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n#include <sys/socket.h>\n" +
		"int main(int n, char **v) { return printf(\"%d %s\\n\", n, v[0]) < 0; }\n"
	return os.WriteFile(filepath.Join(j.dir, "p.c"), []byte(text), 0o600)
}

func gcc(j *job) error {
	return program("/usr/bin/gcc", "-O1", "-o", filepath.Join(j.dir, "p"), filepath.Join(j.dir, "p.c"))
}

const control = "Package: bench-files\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\nDescription: files\n"

// makePackage builds a Debian package of 1,000 files in the root.
func makePackage(j *job) error {
	pkg := filepath.Join(j.dir, "pkg")
	if err := os.MkdirAll(filepath.Join(pkg, "DEBIAN"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(pkg, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		return err
	}
	for i := range 1000 {
		dir := filepath.Join(pkg, fmt.Sprintf("opt/bench-files/d%02d", i%20))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%04d", i)), fmt.Appendf(nil, "file %d\n", i), 0o600); err != nil {
			return err
		}
	}
	return program("/usr/bin/dpkg-deb", "--build", "-Znone", pkg, filepath.Join(j.dir, "pkg.deb"))
}

func installPackage(j *job) error {
	return program("/usr/bin/dpkg", "-i", filepath.Join(j.dir, "pkg.deb"))
}

// makeArchiveOfPackages makes an archive of that package beside it, and has apt know it.
func makeArchiveOfPackages(j *job) error {
	name := filepath.Join(j.dir, "pkg.deb")
	deb, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(j.dir)
	if err != nil {
		return err
	}
	entry := fmt.Sprintf("%sFilename: ./pkg.deb\nSize: %d\nSHA256: %x\n\n", control, len(deb), sha256.Sum256(deb))
	if err := os.WriteFile(filepath.Join(j.dir, "Packages"), []byte(entry), 0o644); err != nil {
		return err
	}
	list := fmt.Sprintf("deb [trusted=yes] file:%s ./\n", dir)
	if err := os.WriteFile(filepath.Join(j.dir, "bench.list"), []byte(list), 0o644); err != nil {
		return err
	}
	return apt(j, "update")
}

// apt runs apt-get with the benchmark's archive alone.
func apt(j *job, args ...string) error {
	list, err := filepath.Abs(filepath.Join(j.dir, "bench.list"))
	if err != nil {
		return err
	}
	options := []string{"-qq", "-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"}
	return program("/usr/bin/apt-get", append(options, args...)...)
}

func aptInstall(j *job) error { return apt(j, "install", "-y", "bench-files") }

// makeRepository makes a git repository of the benchmark's tree.
func makeRepository(j *job) error {
	repo := filepath.Join(j.dir, "repo")
	if err := program("/bin/cp", "-r", tree, repo); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"add", "."},
		{"-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "--quiet", "-m", "all"},
	} {
		if err := program("/usr/bin/git", append([]string{"-C", repo}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

func gitStatus(j *job) error {
	return program("/usr/bin/git", "-C", filepath.Join(j.dir, "repo"), "status", "--porcelain")
}
