package main

import (
	"fmt"
	"slices"
	"strings"
)

// document is what was measured, as docs/benchmarks.md.
func (b *bench) document(r *results) (string, error) {
	machine, err := b.machine()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("# Benchmarks\n\nWritten by `make bench`. Times are medians ± half the distance of the quartiles; the rounds of all contenders take " +
		"turns. A ratio is left out where the runs of one vary (distance of the quartiles) by more than the medians differ.\n\n")
	out.WriteString(machine)
	if r.pulls != nil {
		r.pulls.table(&out)
	}
	if r.mounts != nil {
		r.mounts.table(&out)
	}
	if len(r.rows) > 0 {
		filesystemTable(&out, r.rows, r.targets)
		serverTable(&out, r.rows, r.targets)
	}
	return out.String(), nil
}

func (p *pulls) table(out *strings.Builder) {
	fmt.Fprintf(out, "\n## Pull\n\nAn image of %d layers, %.0f MB compressed, %.0f MB unpacked, from docker-registry on loopback whose files are in "+
		"memory, into an empty store. podman unpacks into overlay storage on the same disk. The pipe fetches, unpacks and hashes the layers two at a "+
		"time and writes nothing. \"On disk\" goes on until a sync after the command has ended; plyfs syncs what it keeps before it ends in any case.\n\n",
		p.layers, float64(p.compressed)/1e6, float64(p.unpacked)/1e6)
	out.WriteString("| | until it ends | until all is on disk | plyfs's time as a ratio to it | the same, on disk |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range []string{byPlyfs, byPodman, byPipe} {
		ratios := [2]string{"", ""}
		if name != byPlyfs {
			ratios = [2]string{ratioText(p.alone[byPlyfs], p.alone[name]), ratioText(p.synced[byPlyfs], p.synced[name])}
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", name, secondsText(p.alone[name]), secondsText(p.synced[name]), ratios[0], ratios[1])
	}
	out.WriteString("\nWanted: at most 0.5 of podman pull, at most 1 of the pipe.\n")
}

func (m *mounts) table(out *strings.Builder) {
	fmt.Fprintf(out, "\n## Mount\n\nThe whole command `plyfs mount IMAGE`, %d times each; the mount answers when it ends.\n\n", len(m.few))
	fmt.Fprintf(out, "| image | time | slowest |\n| --- | --- | --- |\n| 100 layers of 10 files | %s | %s |\n| 100 layers of 4,000 files | %s | %s |\n",
		secondsText(m.few), secondsText(series{slices.Max(m.few)}), secondsText(m.many), secondsText(series{slices.Max(m.many)}))
	fmt.Fprintf(out, "\nRatio of the second to the first: %s. Wanted: below 50 ms, and no growth with the files.\n", ratioText(m.many, m.few))
	fmt.Fprintf(out, "\nMemory of the servers of %d mounts of one Debian image, MiB: median, and the largest.\n\n", len(m.rss))
	out.WriteString("| | resident | proportional (PSS) |\n| --- | --- | --- |\n")
	mib := func(s series) string { return fmt.Sprintf("%.1f, %.1f", s.median()/(1<<20), slices.Max(s)/(1<<20)) }
	fmt.Fprintf(out, "| at rest | %s | %s |\n| after find over all of it (%d of them) | %s | %s |\n", mib(m.rss), mib(m.pss), len(m.walkedRSS), mib(m.walkedRSS), mib(m.walkedPSS))
	out.WriteString("\nWanted: less than 25 MiB resident each.\n")
}

// The targets that ratios are made of.
const (
	nameKernel = "kernel overlayfs"
	namePlyfs  = "plyfs"
	nameURing  = "plyfs, io_uring"
)

func filesystemTable(out *strings.Builder, rows []*measured, targets []string) {
	out.WriteString("\n## Filesystem\n\nThe Debian image with 10,000 and 12,800 small files and one of 512 MiB in its top layer; each run on a mount made for " +
		"it, the process started and everything prepared before the clock.\n\n| workload |")
	for _, name := range targets {
		fmt.Fprintf(out, " %s |", name)
	}
	out.WriteString(" plyfs / kernel overlayfs |")
	uring := slices.Contains(targets, nameURing)
	if uring {
		out.WriteString(" the same over io_uring | io_uring / /dev/fuse |")
	}
	fuse := slices.DeleteFunc(slices.Clone(targets), func(name string) bool { return !strings.HasPrefix(name, "fuse-overlayfs") })
	for _, name := range fuse {
		fmt.Fprintf(out, " %s / kernel overlayfs | plyfs / %s |", name, name)
	}
	columns := len(targets) + 2*len(fuse) + 3
	out.WriteString(" wanted of plyfs / kernel |")
	if uring {
		out.WriteString(" over io_uring |")
		columns += 3
	}
	out.WriteString("\n|" + strings.Repeat(" --- |", columns) + "\n")
	for _, row := range rows {
		fmt.Fprintf(out, "| %s |", row.title)
		for _, name := range targets {
			fmt.Fprintf(out, " %s |", secondsText(row.times[name]))
		}
		fmt.Fprintf(out, " %s |", ratioText(row.times[namePlyfs], row.times[nameKernel]))
		if uring {
			fmt.Fprintf(out, " %s | %s |", ratioText(row.times[nameURing], row.times[nameKernel]), ratioText(row.times[nameURing], row.times[namePlyfs]))
		}
		for _, name := range fuse {
			fmt.Fprintf(out, " %s | %s |", ratioText(row.times[name], row.times[nameKernel]), ratioText(row.times[namePlyfs], row.times[name]))
		}
		fmt.Fprintf(out, " %s |", wanted(row.limit))
		if uring {
			fmt.Fprintf(out, " %s |", wanted(row.uring))
		}
		out.WriteString("\n")
	}
}

func wanted(limit string) string {
	if limit == "" {
		return ""
	}
	return "≤ " + limit
}

// serverTable is what the servers in user space used.
func serverTable(out *strings.Builder, rows []*measured, targets []string) {
	servers := slices.DeleteFunc(slices.Clone(targets), func(name string) bool { return len(rows[0].cpu[name]) == 0 })
	if len(servers) == 0 {
		return
	}
	out.WriteString("\n### Servers\n\nProcessor time of the server while the workload ran (median), and its peak memory.\n\n| workload |")
	for _, name := range servers {
		fmt.Fprintf(out, " %s, CPU s | MiB |", name)
	}
	out.WriteString("\n|" + strings.Repeat(" --- |", 2*len(servers)+1) + "\n")
	for _, row := range rows {
		fmt.Fprintf(out, "| %s |", row.title)
		for _, name := range servers {
			fmt.Fprintf(out, " %.2f | %.0f |", row.cpu[name].median(), row.peak[name]/(1<<20))
		}
		out.WriteString("\n")
	}
}
