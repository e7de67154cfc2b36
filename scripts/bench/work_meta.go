package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

// walkRoot lists every directory and stats every name, as find -printf does. The benchmark's own files are left out: they
// are few directories of many small files, and would outweigh the image.
func walkRoot(*job) error {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == "bench" || path == "work" {
			return fs.SkipDir
		}
		seen++
		_, err = d.Info()
		return err
	})
	if err == nil && seen < 10_000 {
		err = fmt.Errorf("the root has only %d names", seen)
	}
	return err
}

func listSmall(j *job) error {
	j.paths = nil
	err := filepath.WalkDir(small, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			j.paths = append(j.paths, path)
		}
		return err
	})
	if err == nil && len(j.paths) != testimage.SmallFiles {
		err = fmt.Errorf("%d files in %s, want %d", len(j.paths), small, testimage.SmallFiles)
	}
	return err
}

func listAndStat(j *job) error {
	if err := listSmall(j); err != nil {
		return err
	}
	return statPaths(j)
}

func statPaths(j *job) error {
	var st unix.Stat_t
	for _, path := range j.paths {
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func listAndRead(j *job) error {
	if err := listSmall(j); err != nil {
		return err
	}
	return readPaths(j)
}

func readPaths(j *job) error {
	buf := make([]byte, 8<<10)
	for _, path := range j.paths {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return fmt.Errorf("%s: read %d bytes, %w", path, n, err)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

func missingNames(j *job) error {
	for i := range 10_000 {
		j.paths = append(j.paths, fmt.Sprintf("%s/d%03d/missing%s-%d", small, i%100, filepath.Base(j.dir), i))
	}
	return nil
}

func openMissing(rounds int) func(j *job) error {
	return func(j *job) error {
		for range rounds {
			for _, path := range j.paths {
				if _, err := unix.Open(path, unix.O_RDONLY, 0); !errors.Is(err, unix.ENOENT) {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
		}
		return nil
	}
}

func created(j *job, i int) string { return fmt.Sprintf("%s/f%05d", j.dir, i) }

func createFiles(j *job) error {
	data := []byte(strings.Repeat("created\n", 16))
	for i := range 10_000 {
		if err := writeNew(created(j, i), data); err != nil {
			return err
		}
	}
	return nil
}

func writeNew(path string, data []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = unix.Write(fd, data)
	return errors.Join(err, unix.Close(fd))
}

func unlinkFiles(j *job) error {
	for i := range 10_000 {
		if err := unix.Unlink(created(j, i)); err != nil {
			return err
		}
	}
	return nil
}

func unlinkPaths(j *job) error {
	for _, path := range j.paths {
		if err := unix.Unlink(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// makeArchive makes a tar of the benchmark's tree in memory.
func makeArchive(j *job) error {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(tree)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	j.data = buf.Bytes()
	return nil
}

// untar does what tar does as root: make, write, own, give the mode and the time.
func untar(j *job) error {
	r := tar.NewReader(bytes.NewReader(j.data))
	files, made := 0, map[string]bool{}
	mkdir := func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		return os.MkdirAll(dir, 0o755)
	}
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		path := filepath.Join(j.dir, "tree", h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := mkdir(path); err != nil {
				return err
			}
			continue
		}
		if err := mkdir(filepath.Dir(path)); err != nil {
			return err
		}
		if err := untarFile(path, r, h); err != nil {
			return err
		}
		files++
	}
	if files != testimage.TreeFiles {
		return fmt.Errorf("the archive has %d files, want %d", files, testimage.TreeFiles)
	}
	return nil
}

func untarFile(path string, r io.Reader, h *tar.Header) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Chown(h.Uid, h.Gid)
	}
	if err == nil {
		err = f.Chmod(fs.FileMode(h.Mode).Perm())
	}
	if err == nil {
		ts := unix.NsecToTimeval(time.Now().UnixNano())
		if !h.ModTime.IsZero() {
			ts = unix.NsecToTimeval(h.ModTime.UnixNano())
		}
		err = unix.Futimes(int(f.Fd()), []unix.Timeval{ts, ts})
	}
	return errors.Join(err, f.Close())
}

func archiveAndUntar(j *job) error { return inOrder(makeArchive, untar)(j) }

func removeLower(*job) error { return os.RemoveAll(tree) }

func removeUpper(j *job) error { return os.RemoveAll(filepath.Join(j.dir, "tree")) }

func chmodBig(*job) error { return os.Chmod(big, 0o600) }

func moveBig(*job) error { return move(big, "bench/moved") }

func moveSmall(*job) error { return move(small, "bench/moved") }

// move is mv: what cannot be renamed is copied.
func move(from, to string) error {
	err := unix.Rename(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	out, err := exec.Command("mv", "-T", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mv: %w: %s", err, out)
	}
	return nil
}
