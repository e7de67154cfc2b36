package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/plyfs/plyfs/integration/tinyimage"
)

// layers are those of the demo's image, bottom first. Upper ones replace and delete what is below by whiteouts, as the
// OCI image specification has them (layer.md).
func layers(userland string) [][]tinyimage.Entry {
	base := []tinyimage.Entry{
		{Path: "bin/"},
		{Path: "etc/"},
		{Path: "srv/"},
		{Path: "srv/www/"},
		{Path: "tmp/", Mode: 0o1777},
		{Path: "bin/userland", Mode: 0o755, Data: userland},
		{Path: "etc/motd", Data: "first layer\n"},
		{Path: "etc/obsolete", Data: "the second layer deletes this\n"},
		{Path: "srv/www/old1", Data: "old\n"},
		{Path: "srv/www/old2", Data: "old\n"},
	}
	for _, applet := range []string{"sh", "ls", "cat", "rm", "mkdir", "echo"} {
		base = append(base, tinyimage.Entry{Path: "bin/" + applet, Target: "userland"})
	}
	return [][]tinyimage.Entry{
		base,
		{
			{Path: "etc/"},
			{Path: "etc/motd", Data: "second layer\n"},
			{Path: "etc/.wh.obsolete"}, // deletes etc/obsolete
		},
		{
			{Path: "srv/"},
			{Path: "srv/www/"},
			{Path: "srv/www/.wh..wh..opq"}, // empties srv/www of what the layers below have
			{Path: "srv/www/index.html", Data: "<h1>plyfs</h1>\n"},
		},
	}
}

// buildUserland builds the image's only program, static, and returns it.
func buildUserland(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "userland")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./scripts/demo/userland")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the image's userland: %w\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	return string(data), err
}
