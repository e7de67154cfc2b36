package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/integration/testimage"
)

const (
	block4k  = 4 << 10
	block1m  = 1 << 20
	fileSize = 256 << 20
)

// makeBlock makes bytes to write that no file system can do without.
func makeBlock(j *job) error {
	rnd := rand.New(rand.NewPCG(3, 4))
	j.data = make([]byte, block1m)
	for i := range j.data {
		j.data[i] = byte(rnd.Uint32())
	}
	return nil
}

func (j *job) file() string { return filepath.Join(j.dir, "file") }

// makeFile writes the file that others overwrite, and has it on disk before they begin.
func makeFile(j *job) error {
	if err := makeBlock(j); err != nil {
		return err
	}
	return withFile(j.file(), os.O_CREATE|os.O_RDWR, func(f *os.File) error {
		for range fileSize / block1m {
			if _, err := f.Write(j.data); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

func withFile(path string, flags int, use func(f *os.File) error) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(use(f), f.Close())
}

func writeSequential(j *job) error { return writeBlocks(j, block4k, fileSize, false) }

func writeLarge(j *job) error { return writeBlocks(j, block1m, 2*fileSize, false) }

func writeSynced(j *job) error { return writeBlocks(j, block1m, 2*fileSize, true) }

func writeBlocks(j *job, block, size int, sync bool) error {
	return withFile(j.file(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, func(f *os.File) error {
		for at := 0; at < size; at += block {
			from := at % block1m
			if _, err := f.Write(j.data[from : from+block]); err != nil {
				return err
			}
		}
		if sync {
			return f.Sync()
		}
		return nil
	})
}

func writeRandom(j *job) error {
	rnd := rand.New(rand.NewPCG(5, 6))
	return withFile(j.file(), os.O_WRONLY, func(f *os.File) error {
		for range 32_768 {
			at := rnd.Int64N(fileSize/block4k) * block4k
			if _, err := f.WriteAt(j.data[:block4k], at); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeMapped(j *job) error {
	return withFile(j.file(), os.O_RDWR, func(f *os.File) error {
		const size = fileSize / 2
		m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return fmt.Errorf("mmap: %w", err)
		}
		for at := 0; at < size; at += block1m {
			copy(m[at:], j.data)
		}
		return unix.Munmap(m)
	})
}

func readBig(*job) error {
	buf := make([]byte, block1m)
	return withFile(big, os.O_RDONLY, func(f *os.File) error {
		var sum int64
		for {
			n, err := f.Read(buf)
			sum += int64(n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if sum != testimage.BigSize {
			return fmt.Errorf("%s has %d bytes, want %d", big, sum, int64(testimage.BigSize))
		}
		return nil
	})
}
