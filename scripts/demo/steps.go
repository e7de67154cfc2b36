package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// expect compares what a step printed with what it must print.
func expect(step, want string, got string, err error) error {
	if err != nil {
		return err
	}
	if got = strings.TrimSpace(got); got != want {
		return fmt.Errorf("%s: got %q, want %q", step, got, want)
	}
	return nil
}

// say prints what comes next and why.
func say(text string) { fmt.Printf("\n# %s\n", text) }

// steps is the demo.
func (d *demo) steps(ref string) error {
	for _, step := range []func(ref string) error{d.pull, d.mount, d.change, d.remount, d.save, d.remove} {
		if err := step(ref); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) pull(ref string) error {
	say("Pull: each layer becomes one file and its index. The result alone is on standard output.")
	out, err := d.plyfs("pull", ref)
	if err := expect("pull prints the image's name", ref, out, err); err != nil {
		return err
	}
	out, err = d.plyfs("images")
	if err == nil && !strings.Contains(out, strings.TrimSuffix(ref, ":latest")) {
		err = fmt.Errorf("images does not list %s", ref)
	}
	return err
}

func (d *demo) mount(ref string) error {
	say("Mount: a writable root filesystem, and no file was unpacked for it.")
	out, err := d.plyfs("mount", "--name", "web", ref, d.mountpoint)
	if err := expect("mount prints the mountpoint", d.mountpoint, out, err); err != nil {
		return err
	}
	say("The second layer replaced /etc/motd and deleted /etc/obsolete, the third emptied /srv/www and put one file there.")
	out, err = d.chroot("ls /etc; cat /etc/motd; ls /srv/www")
	return expect("the layers' union", "motd\nsecond layer\nindex.html", out, err)
}

func (d *demo) change(string) error {
	say("Programs of the image run in it, and change it.")
	out, err := d.chroot("echo changed >> /etc/motd; rm /srv/www/index.html; mkdir /srv/new; echo hello > /srv/new/file; cat /etc/motd; ls /srv /srv/www")
	return expect("the changes", "second layer\nchanged\nnew\nwww", out, err)
}

func (d *demo) remount(string) error {
	say("Unmounted and mounted again, the container has kept its changes, and they are in a directory of its own.")
	if _, err := d.plyfs("umount", "web"); err != nil {
		return err
	}
	entries, err := os.ReadDir(d.mountpoint)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s still shows %v after umount", d.mountpoint, entries)
	}
	out, err := d.plyfs("mount", "web", d.mountpoint)
	if err := expect("mount prints the mountpoint", d.mountpoint, out, err); err != nil {
		return err
	}
	out, err = d.chroot("cat /etc/motd /srv/new/file; ls /srv/www")
	return expect("the kept changes", "second layer\nchanged\nhello", out, err)
}

func (d *demo) save(ref string) error {
	say("Save writes the image, untouched by the container's changes, to a file that docker, podman and skopeo load.")
	path := filepath.Join(d.dir, "demo.tar")
	if _, err := d.plyfs("save", "-o", path, ref); err != nil {
		return err
	}
	names, err := tarNames(path)
	if err != nil {
		return err
	}
	fmt.Printf("  %s holds %s\n", path, strings.Join(names, " "))
	for _, name := range names {
		if name == "manifest.json" {
			return nil
		}
	}
	return fmt.Errorf("%s has no manifest.json", path)
}

func tarNames(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	var names []string
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		names = append(names, h.Name)
	}
}

func (d *demo) remove(ref string) error {
	say("A container in use is not deleted, nor its image.")
	if _, err := d.plyfs("rm", "web"); err == nil {
		return errors.New("rm deleted a mounted container")
	}
	if _, err := d.plyfs("rmi", ref); err == nil {
		return errors.New("rmi deleted an image in use")
	}
	say("Unmounted, both go.")
	for _, args := range [][]string{{"umount", d.mountpoint}, {"rm", "web"}, {"rmi", ref}} {
		if _, err := d.plyfs(args...); err != nil {
			return err
		}
	}
	out, err := d.plyfs("images", "-q")
	return expect("images after rmi", "", out, err)
}
