package main

// workload is a row of the filesystem table. It runs in the root of an image with the benchmark's layer (see
// testimage.Bench) as its working directory.
type workload struct {
	name    string
	title   string
	limit   string           // of plyfs's ratio to kernel overlayfs over /dev/fuse, for the table; "" is none
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
	workloads = []workload{
		{name: "find-warm", title: "find with stat of each name over the root, warm", limit: "1.5", prepare: walkRoot, run: walkRoot},
		{name: "find-cold", title: "the same, names and inodes dropped", limit: "1.7", cold: 2, run: walkRoot},
		{name: "find-cold-disk", title: "the same, pages dropped too", cold: 3, run: walkRoot},
		{name: "stat-warm", title: "stat of 10,000 paths, warm", limit: "1.1", prepare: listAndStat, run: statPaths},
		{name: "stat-cold", title: "the same, names and inodes dropped", limit: "4", cold: 2, prepare: listSmall, run: statPaths},
		{name: "read-small-warm", title: "open, read, close of 10,000 files, warm", limit: "1.1", prepare: listAndRead, run: readPaths},
		{name: "read-small-cold", title: "the same, pages, names and inodes dropped", cold: 3, prepare: listSmall, run: readPaths},
		{name: "missing", title: "60,000 opens of missing names", limit: "1.1", prepare: missingNames, run: openMissing},
		{name: "create", title: "create 10,000 files", limit: "2", run: createFiles},
		{name: "unlink", title: "unlink 10,000 files of the upper layer", limit: "6", prepare: createFiles, run: unlinkFiles},
		{name: "unlink-lower", title: "unlink 10,000 files of a lower layer", spoils: []string{small}, prepare: listSmall, run: unlinkPaths},
		{name: "untar", title: "untar 12,800 files", limit: "1.2", prepare: makeArchive, run: untar},
		{name: "rm-lower", title: "rm -rf of a lower tree (12,800 files)", limit: "4", spoils: []string{tree}, run: removeLower},
		{name: "rm-upper", title: "rm -rf of an upper tree (12,800 files)", limit: "6", prepare: archiveAndUntar, run: removeUpper},
		{name: "write-4k", title: "4 KiB writes, sequential, 256 MiB", limit: "1.1", prepare: makeBlock, run: writeSequential},
		{name: "write-4k-random", title: "4 KiB writes, random, 32,768 in 256 MiB", limit: "1.1", prepare: makeFile, run: writeRandom},
		{name: "write-1m", title: "1 MiB writes, 512 MiB", limit: "1.1", prepare: makeBlock, run: writeLarge},
		{name: "write-mmap", title: "writes by mmap, 128 MiB", limit: "1.1", prepare: makeFile, run: writeMapped},
		{name: "read-1m-warm", title: "1 MiB reads of 512 MiB, warm", limit: "3", prepare: readBig, run: readBig},
		{name: "read-1m-cold", title: "the same, pages dropped", limit: "1.1", cold: 3, run: readBig},
		{name: "chmod-big", title: "chmod of a 512 MiB lower file", limit: "0.05", spoils: []string{big}, run: chmodBig},
		{name: "mv-big", title: "mv of a 512 MiB lower file", limit: "0.05", spoils: []string{big, "bench/moved"}, run: moveBig},
		{name: "mv-dir", title: "mv of a lower directory of 10,000 files", limit: "0.05", spoils: []string{small, "bench/moved"}, run: moveSmall},
		{name: "python", title: "python3 with imports × 20, chroot", limit: "1.3", chroot: true, prepare: python, run: times(20, python)},
		{name: "gcc", title: "gcc × 20, chroot", limit: "1.3", chroot: true, prepare: inOrder(writeProgram, gcc), run: times(20, gcc)},
		{
			name: "dpkg", title: "dpkg -i of 1,000 files, chroot", limit: "1.3", chroot: true,
			spoils: []string{"var/lib/dpkg", "var/log/dpkg.log", "opt/bench-files"}, prepare: makePackage, run: installPackage,
		},
		{
			name: "git-status", title: "git status × 5 in 12,800 files, chroot", limit: "1.3", chroot: true,
			prepare: inOrder(makeRepository, gitStatus), run: times(5, gitStatus),
		},
		{name: "stat-warm-4", title: "4 processes: stat of 10,000 paths, warm", limit: "1.1", procs: 4, prepare: listAndStat, run: statPaths},
		{name: "read-small-warm-4", title: "4 processes: open, read, close of 10,000 files, warm", limit: "1.1", procs: 4, prepare: listAndRead, run: readPaths},
		{name: "create-4", title: "4 processes: create 10,000 files each", limit: "2", procs: 4, run: createFiles},
		{name: "untar-4", title: "4 processes: untar 12,800 files each", limit: "1.2", procs: 4, prepare: makeArchive, run: untar},
		{name: "write-4k-4", title: "4 processes: 4 KiB writes, sequential, 256 MiB each", limit: "1.1", procs: 4, prepare: makeBlock, run: writeSequential},
	}
}
