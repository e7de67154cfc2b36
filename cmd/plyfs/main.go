// Command plyfs mounts container images as writable root filesystems, in user space and without a daemon.
package main

import (
	"os"

	"github.com/plyfs/plyfs/container"
)

func main() {
	// The server of a mount starts here: `plyfs mount` waits for it, so it passes by everything that the commands need.
	if len(os.Args) > 1 && os.Args[1] == container.ServeCommand {
		os.Exit(container.ServeMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == serveOverlayCommand {
		os.Exit(serveOverlayMain(os.Args[2:]))
	}
	if status, ok := runAs(os.Args[0], os.Args[1:], os.Stdout, os.Stderr); ok {
		os.Exit(status)
	}
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}
