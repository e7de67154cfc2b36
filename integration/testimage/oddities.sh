#!/bin/sh
# Makes one layer tar, in PAX format, of all that a tar can hold and few images have: an opaque directory, whiteouts, hard
# links, a sparse file, devices, a fifo, extended attributes, capabilities, set-id bits, odd names, odd times.
# usage: oddities.sh STAGE TAR
set -eu

stage=$1
tar=$2
mkdir -p "$stage/opt/odd"
(
	cd "$stage/opt/odd"

	mkdir -p opaque/new && touch opaque/.wh..wh..opq && echo upper >opaque/a2 && echo new >opaque/new/n
	touch .wh.replaced-link
	echo upper >replaced

	mkdir -p links/sub && echo linked >links/one && ln links/one links/sub/two && ln links/one links/three
	ln -s one links/relative && ln -s /opt/odd/links/one links/absolute && ln -s nowhere/at/all links/dangling
	ln -s "$(printf 'x%.0s' $(seq 1 300))" links/long
	ln links/relative links/relative-again

	truncate -s 64M sparse
	printf begin | dd of=sparse conv=notrunc status=none
	printf middle | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
	dd if=/dev/urandom of=sparse bs=64K count=3 seek=500 conv=notrunc status=none
	truncate -s 5M hole-only
	: >empty

	mkdir dev && mknod dev/null c 1 3 && mknod dev/block b 7 200 && mknod dev/big c 4000 1000000 && mkfifo dev/fifo
	chmod 666 dev/null

	mkdir modes && touch modes/none modes/suid modes/sgid modes/all && mkdir modes/sticky modes/sgiddir modes/closed
	chown 12345:54321 modes/all && chown 3000000000:4000000000 modes/none
	chmod 0 modes/none && chmod 4755 modes/suid && chmod 2755 modes/sgid && chmod 7777 modes/all
	chmod 1777 modes/sticky && chmod 2775 modes/sgiddir && touch modes/closed/in && chmod 0 modes/closed

	mkdir xattrs && echo x >xattrs/file && mkdir xattrs/dir && cp /bin/true xattrs/capable
	setfattr -n user.text -v value xattrs/file && setfattr -n user.binary -v 0x00ff0a3d00 xattrs/file
	setfattr -n user.long -v "$(printf 'v%.0s' $(seq 1 3000))" xattrs/file
	setfattr -n user.ondir -v d xattrs/dir && setfattr -n trusted.secret -v t xattrs/dir
	setcap cap_net_bind_service,cap_net_raw+eip xattrs/capable

	mkdir names && touch "names/with space" "names/ünïcödé-名" "names/$(printf 'new\nline')" "names/$(printf 'bytes-\377\376')" \
		"names/-dash" "names/back\\slash" "names/$(printf 'n%.0s' $(seq 1 255))" "names/wh.not-a-whiteout" names/...
	deep=names && for i in 1 2 3 4 5 6; do deep=$deep/$(printf "d$i%.0s" $(seq 1 30)) && mkdir "$deep"; done && echo deep >"$deep/file"

	mkdir times && for t in "1970-01-01 00:00:00.000000001" "1969-12-31 23:59:58.25" "2038-01-20 00:00:00.123456789" \
		"2100-06-01 12:00:00.5" "2001-02-03 04:05:06.789012345"; do touch -d "$t UTC" "times/$(echo "$t" | tr ' :' '__')"; done
	touch -h -d "2003-03-03 03:03:03.333333333 UTC" links/relative
	mkdir emptydir && touch -d "2002-02-02 02:02:02.222222222 UTC" emptydir times links
)
# Without the directories opt and opt/odd themselves: they are implied.
cd "$stage"
find opt/odd -mindepth 1 -maxdepth 1 -print0 | sort -z |
	tar --create --file "$tar" --format=posix --pax-option=delete=atime,delete=ctime --numeric-owner --sparse --hole-detection=seek \
		--xattrs --xattrs-include='*' --null --files-from=-
