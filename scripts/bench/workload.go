package main

import "slices"

// workload is a row of the filesystem table. It runs in the root of an image with the benchmark's layer (see
// testimage.Bench) as its working directory.
type workload struct {
	name    string
	title   string
	limit   string           // of plyfs's ratio to kernel overlayfs over /dev/fuse, for the table; "" is none
	uring   string           // the same over io_uring
	four    bool             // run by four processes at once, too, as a row of its own
	cold    int              // what is dropped from the kernel's caches between prepare and run, see dropCaches
	procs   int              // processes at once; 0 is 1
	chroot  bool             // programs of the image are run
	spoils  []string         // what of the image is changed, so that a native directory needs it anew
	prepare func(*job) error // not measured; nil is nothing
	run     func(*job) error // measured
}

// job is a workload in a process of its own.
type job struct {
	dir   string // the process's own directory, relative to the root, empty at first
	paths []string
	data  []byte
}

func findWorkload(name string) *workload {
	for i := range workloads {
		if workloads[i].name == name {
			return &workloads[i]
		}
	}
	return nil
}

const (
	small = "bench/small"
	tree  = "bench/tree"
	big   = "bench/big"
)

// workloads are the rows, in the order of the table.
var workloads []workload

// The table refers to functions that refer to it.
func init() {
	workloads = slices.Concat(metaRows(), dataRows(), programRows())
	for _, w := range workloads {
		if w.four {
			w.name += "-4"
			w.title = "4 processes: " + w.title
			w.procs = 4
			workloads = append(workloads, w)
		}
	}
}

func metaRows() []workload {
	return []workload{
		{name: "find-warm", title: "find with stat of each name over the root, warm", limit: "1.5", uring: "1.3", four: true, prepare: walkRoot, run: walkRoot},
		{name: "find-cold", title: "find over the root, names and inodes dropped", limit: "1.7", uring: "1.3", four: true, cold: 2, run: walkRoot},
		{name: "find-cold-disk", title: "find over the root, pages dropped too", cold: 3, run: walkRoot},
		{name: "stat-warm", title: "stat of 10,000 paths, warm", limit: "1.1", uring: "1.1", four: true, prepare: listAndStat, run: statPaths},
		{name: "stat-cold", title: "stat of 10,000 paths, names and inodes dropped", limit: "4", uring: "2.5", four: true, cold: 2, prepare: listSmall, run: statPaths},
		{name: "read-small-warm", title: "open, read, close of 10,000 files, warm", limit: "1.1", uring: "1.1", four: true, prepare: listAndRead, run: readPaths},
		{name: "read-small-cold", title: "open, read, close of 10,000 files, pages, names and inodes dropped", cold: 3, prepare: listSmall, run: readPaths},
		{name: "missing-warm", title: "60,000 opens of 10,000 missing names, warm", limit: "1.1", uring: "1.1", four: true, prepare: inOrder(missingNames, openMissing(1)), run: openMissing(6)},
		{name: "missing", title: "60,000 opens of 10,000 missing names, of which the first is cold", prepare: missingNames, run: openMissing(6)},
		{name: "create", title: "create 10,000 files", limit: "2", uring: "1.5", four: true, run: createFiles},
		{name: "unlink", title: "unlink 10,000 files of the upper layer", limit: "6", uring: "3", four: true, prepare: createFiles, run: unlinkFiles},
		{name: "unlink-lower", title: "unlink 10,000 files of a lower layer", spoils: []string{small}, prepare: listSmall, run: unlinkPaths},
		{name: "untar", title: "untar 12,800 files", limit: "1.2", uring: "1.1", four: true, prepare: makeArchive, run: untar},
		{name: "rm-lower", title: "rm -rf of a lower tree (12,800 files)", limit: "4", uring: "2.5", spoils: []string{tree}, run: removeLower},
		{name: "rm-upper", title: "rm -rf of an upper tree (12,800 files)", limit: "6", uring: "3", four: true, prepare: archiveAndUntar, run: removeUpper},
		{name: "chmod-big", title: "chmod of a 512 MiB lower file", limit: "0.05", uring: "0.05", spoils: []string{big}, run: chmodBig},
		{name: "mv-big", title: "mv of a 512 MiB lower file", limit: "0.05", uring: "0.05", spoils: []string{big, "bench/moved"}, run: moveBig},
		{name: "mv-dir", title: "mv of a lower directory of 10,000 files", limit: "0.05", uring: "0.05", spoils: []string{small, "bench/moved"}, run: moveSmall},
	}
}

func dataRows() []workload {
	return []workload{
		{name: "write-4k", title: "4 KiB writes, sequential, 256 MiB", limit: "1.1", uring: "1.1", four: true, prepare: makeBlock, run: writeSequential},
		{name: "write-4k-random", title: "4 KiB writes, random, 32,768 in 256 MiB", limit: "1.1", uring: "1.1", four: true, prepare: makeFile, run: writeRandom},
		{name: "write-1m", title: "1 MiB writes, 512 MiB", limit: "1.1", uring: "1.1", four: true, prepare: makeBlock, run: writeLarge},
		{name: "write-1m-sync", title: "1 MiB writes, 512 MiB, and fsync", prepare: makeBlock, run: writeSynced},
		{name: "write-mmap", title: "writes by mmap, 128 MiB", limit: "1.1", uring: "1.1", four: true, prepare: makeFile, run: writeMapped},
		{name: "read-1m-warm", title: "1 MiB reads of 512 MiB, warm", limit: "3", uring: "3", four: true, prepare: readBig, run: readBig},
		{name: "read-1m-cold", title: "1 MiB reads of 512 MiB, pages dropped", limit: "1.1", uring: "1.1", four: true, cold: 3, run: readBig},
	}
}

func programRows() []workload {
	return []workload{
		{name: "python", title: "python3 with imports × 20, chroot", limit: "1.3", uring: "1.15", four: true, chroot: true, prepare: python, run: times(20, python)},
		{name: "gcc", title: "gcc × 20, chroot", limit: "1.3", uring: "1.15", four: true, chroot: true, prepare: inOrder(writeProgram, gcc), run: times(20, gcc)},
		{
			name: "dpkg", title: "dpkg -i of 1,000 files, chroot", limit: "1.3", uring: "1.15", chroot: true,
			spoils: dpkgSpoils, prepare: makePackage, run: installPackage,
		},
		{
			name: "apt", title: "apt-get install of the same from a local archive, chroot", limit: "1.3", uring: "1.15", chroot: true,
			spoils: append([]string{"var/lib/apt", "var/cache/apt", "var/log/apt"}, dpkgSpoils...), prepare: inOrder(makePackage, makeArchiveOfPackages), run: aptInstall,
		},
		{
			name: "git-status", title: "git status × 5 in 12,800 files, chroot", limit: "1.3", uring: "1.15", four: true, chroot: true,
			prepare: inOrder(makeRepository, gitStatus), run: times(5, gitStatus),
		},
	}
}

var dpkgSpoils = []string{"var/lib/dpkg", "var/log/dpkg.log", "opt/bench-files"}
