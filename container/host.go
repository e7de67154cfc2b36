package container

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/layerstore"
)

// HostInfo is what this machine and this store are like, as far as it matters to plyfs.
type HostInfo struct {
	Root              string
	Filesystem        string // type of the store's file system: "ext2/3/4", "xfs"…, or its number in hexadecimal
	FreeBytes         uint64 // on it, for this user
	Images            int
	Containers        int
	ContainersMounted int

	KernelVersion   string
	OperatingSystem string
	Architecture    string
	NCPU            int
	MemTotal        uint64 // bytes
	UID             int

	FUSE           string // "available", or what keeps this user from opening /dev/fuse
	Passthrough    string // whether the kernel has FUSE passthrough
	IOUring        string // whether FUSE may use io_uring: "on", "off" or "not in this kernel"
	IOUringHint    string // how to switch it on, "" when it is on or cannot be
	Fusermount     string // path of fusermount3, "" where it is not installed
	Overlay        bool   // the kernel has overlayfs, loaded or built in
	UserNamespaces string // "available", or why not
	CgroupVersion  int    // 1 or 2, 0 where none is mounted
	OpenFiles      uint64 // soft limit of open files
	OpenFilesMax   uint64 // the hard one
}

// Host finds out what this machine is like.
func Host(ctx context.Context, st *layerstore.Store) (HostInfo, error) {
	u, err := st.Usage(ctx)
	if err != nil {
		return HostInfo{}, err
	}
	h := HostInfo{
		Root: st.Root(), Images: len(u.Images), Containers: len(u.Containers), UID: os.Geteuid(),
		NCPU: runtime.NumCPU(), Architecture: runtime.GOARCH, OperatingSystem: osName(),
	}
	for _, c := range u.Containers {
		if c.Active {
			h.ContainersMounted++
		}
	}
	h.filesystem()
	h.kernel()
	h.fuse()
	h.namespaces()
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		h.OpenFiles, h.OpenFilesMax = limit.Cur, limit.Max
	}
	return h, nil
}

// fsNames are the magic numbers of file systems (include/uapi/linux/magic.h).
var fsNames = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext2/3/4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.FUSE_SUPER_MAGIC: "fuse", unix.F2FS_SUPER_MAGIC: "f2fs",
	0x2fc12fc1: "zfs", 0x0bd00bd0: "lustre",
}

func (h *HostInfo) filesystem() {
	var fs unix.Statfs_t
	if unix.Statfs(h.Root, &fs) != nil {
		return
	}
	h.FreeBytes = fs.Bavail * uint64(fs.Bsize)
	name, ok := fsNames[int64(fs.Type)] //nolint:unconvert // 32 bits on other machines
	if !ok {
		name = fmt.Sprintf("%#x", fs.Type)
	}
	h.Filesystem = name
}

func (h *HostInfo) kernel() {
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		h.KernelVersion = unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemTotal = uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // 32 bits on other machines
	}
	h.Overlay = slices.Contains(strings.Fields(readSmall("/proc/filesystems")), "overlay")
	if !h.Overlay { // it may be a module that nobody has asked for yet
		_, err := os.Stat("/lib/modules/" + h.KernelVersion + "/kernel/fs/overlayfs")
		h.Overlay = err == nil
	}
	var fs unix.Statfs_t
	switch {
	case unix.Statfs("/sys/fs/cgroup", &fs) != nil:
	case fs.Type == unix.CGROUP2_SUPER_MAGIC:
		h.CgroupVersion = 2
	default:
		h.CgroupVersion = 1
	}
}

func (h *HostInfo) fuse() {
	h.FUSE = "available"
	if err := unix.Access(fuseDevice, unix.R_OK|unix.W_OK); err != nil {
		h.FUSE = fuseDevice + ": " + err.Error()
	}
	if path, err := exec.LookPath(fusermount3); err == nil {
		h.Fusermount = path
	}
	h.Passthrough = "not in this kernel (since 6.9)"
	var major, minor int
	if n, err := fmt.Sscanf(h.KernelVersion, "%d.%d", &major, &minor); n == 2 && err == nil && (major > 6 || major == 6 && minor >= 9) {
		h.Passthrough = "in this kernel"
	}
	const switchFile = "/sys/module/fuse/parameters/enable_uring"
	switch strings.TrimSpace(readSmall(switchFile)) {
	case "Y", "1":
		h.IOUring = "on"
	case "N", "0":
		h.IOUring = "off"
		h.IOUringHint = "echo 1 > " + switchFile + ", or fuse.enable_uring=1 on the kernel's command line"
	default:
		h.IOUring = "not in this kernel (since 6.14)"
	}
}

func (h *HostInfo) namespaces() {
	_, err := os.Stat("/proc/self/ns/user")
	switch {
	case err != nil:
		h.UserNamespaces = "not in this kernel"
	case strings.TrimSpace(readSmall("/proc/sys/user/max_user_namespaces")) == "0":
		h.UserNamespaces = "switched off: user.max_user_namespaces is 0"
	case h.UID != 0 && strings.TrimSpace(readSmall("/proc/sys/kernel/unprivileged_userns_clone")) == "0":
		h.UserNamespaces = "root only: kernel.unprivileged_userns_clone is 0"
	default:
		h.UserNamespaces = "available"
	}
}

func osName() string {
	for line := range strings.Lines(readSmall("/etc/os-release")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return runtime.GOOS
}

// readSmall reads a file of the kernel or the system; one that cannot be read is empty.
func readSmall(path string) string {
	b, err := os.ReadFile(path) // #nosec G304 -- names of our own
	if err != nil {
		return ""
	}
	return string(b)
}
