package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// diskSize is the most that a benchmark keeps at a time; what is not used takes no room.
const diskSize = 48 << 30

// disk is an ext4 of the benchmark's own in a file. On the machine's own file system neither its age nor what earlier runs
// deleted could be told from what is measured: ext4 without a journal, which some virtual machines have, looks at each
// inode that was deleted in the last minute before it makes one.
type disk struct {
	image string // the file
	loop  string // its device
	dir   string // where it is mounted
}

// openDisk makes the disk in a directory, or opens the one that is there.
func openDisk(parent string) (d *disk, err error) {
	d = &disk{image: filepath.Join(parent, "disk"), dir: filepath.Join(parent, "mnt")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	if err := d.format(); err != nil {
		return nil, err
	}
	loop, err := output("losetup", "--find", "--show", "--direct-io=on", d.image)
	if err != nil {
		return nil, err
	}
	d.loop = strings.TrimSpace(loop)
	if err := unix.Mount(d.loop, d.dir, "ext4", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", d.image, err), command("losetup", "--detach", d.loop))
	}
	return d, nil
}

func (d *disk) format() error {
	if _, err := os.Stat(d.image); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := d.image + ".new"
	f, err := os.Create(fresh)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return err
	}
	// All that mkfs would leave for later is done by then, or need not be: the file is zeros.
	err = command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,assume_storage_prezeroed=1", fresh)
	if err != nil {
		return err
	}
	return os.Rename(fresh, d.image)
}

// close unmounts the disk. What a failure left mounted on it is detached first, never deleted through.
func (d *disk) close() error {
	var errs []error
	for _, m := range mountsBelow(d.dir) {
		errs = append(errs, unix.Unmount(m, unix.MNT_DETACH))
	}
	return errors.Join(append(errs, unmount(d.dir), command("losetup", "--detach", d.loop))...)
}
