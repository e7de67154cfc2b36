package tarlayer

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const dirT, symT, lnkT = typeDir, typeSymlink, typeLink

func x(name string) ent { return ent{name: name, data: "x"} }

func d(name string) ent { return ent{name: name, typ: dirT, mode: 0o700, uid: 5} }

const ( // what walk says of them
	file    = " 100644 0:0 1000.0 n1 \"x\""
	root    = ". 40755 0:0 0.0 n"
	implied = " 40755 0:0 0.0 n"
	listed  = " 40700 5:0 1000.0 n"
)

// treeCases are archives and what walk says of them.
var treeCases = []struct {
	name string
	ents []ent
	want []string
}{
	{"empty", nil, []string{root + "2 implied"}},
	{"implied directories", []ent{x("a/b/c")}, []string{
		root + "3 implied", "a" + implied + "3 implied", "a/b" + implied + "2 implied", "a/b/c" + file,
	}},
	{"child before parent", []ent{x("a/b"), d("a/")}, []string{root + "3 implied", "a" + listed + "2", "a/b" + file}},
	{"root listed", []ent{{name: "./", typ: dirT, mode: 0o1777, gid: 3}, x("./a")}, []string{
		". 41777 0:3 1000.0 n2", "a" + file,
	}},
	{"noisy names", []ent{x("./etc/./x"), x("etc/../y"), {name: "/", typ: dirT, mode: 0o700}}, []string{
		". 40700 0:0 1000.0 n3", "etc" + implied + "2 implied", "etc/x" + file, "y" + file,
	}},
	{"file replaces file", []ent{{name: "a", data: "old", uid: 9}, x("a")}, []string{root + "2 implied", "a" + file}},
	{
		"directory over directory",
		[]ent{{name: "a", typ: dirT, pax: map[string]string{"SCHILY.xattr.user.k": "v"}}, x("a/x"), d("a")},
		[]string{root + "3 implied", "a" + listed + "2", "a/x" + file},
	},
	{"file over directory", []ent{d("a"), x("a/b/c"), x("a")}, []string{root + "2 implied", "a" + file}},
	{
		"directory over file",
		[]ent{x("a"), d("a"), x("a/b")},
		[]string{root + "3 implied", "a" + listed + "2 opaque", "a/b" + file},
	},
	{
		"directory over file over directory",
		[]ent{d("a"), x("a/old"), x("a"), d("a"), x("a/b")},
		[]string{root + "3 implied", "a" + listed + "2 opaque", "a/b" + file},
	},
	{"whiteout", []ent{{name: ".wh.a"}, {name: "d/.wh.b"}}, []string{
		root + "3 implied", "a whiteout", "d" + implied + "2 implied", "d/b whiteout",
	}},
	{"whiteout below a file", []ent{x("a"), {name: "a/.wh.b"}, {name: "c/.wh.d"}, x("c"), {name: "a/.wh..wh..opq"}}, []string{
		root + "2 implied", "a" + file, "c" + file,
	}},
	{"whiteout and file", []ent{{name: ".wh.a"}, x("a"), x("b"), {name: ".wh.b"}}, []string{
		root + "2 implied", "a" + file, "b" + file,
	}},
	{"whiteout and directory", []ent{x("a/x"), {name: ".wh.a"}, {name: ".wh.b"}, d("b")}, []string{
		root + "4 implied", "a" + implied + "2 opaque", "a/x" + file, "b" + listed + "2 opaque",
	}},
	{"opaque marker", []ent{d("a"), x("a/x"), {name: "a/.wh..wh..opq"}, x("a/y")}, []string{
		root + "3 implied", "a" + listed + "2 opaque", "a/x" + file, "a/y" + file,
	}},
	{"opaque root", []ent{{name: ".wh..wh..opq"}}, []string{root + "2 implied opaque"}},
	{"aufs names", []ent{d(".wh..wh.plnk"), x(".wh..wh.plnk/1.2"), x("a/.wh..wh.aufs"), x("b")}, []string{
		root + "2 implied", "b" + file,
	}},
	{
		"hard links",
		[]ent{x("a"), {name: "d/b", typ: lnkT, link: "./a", mode: 0o600, uid: 3}, {name: "c", typ: lnkT, link: "/d/b"}},
		[]string{
			root + "3 implied", "a 100644 0:0 1000.0 n3 \"x\" inode 2", "c 100644 0:0 1000.0 n3 \"x\" inode 2",
			"d" + implied + "2 implied", "d/b 100644 0:0 1000.0 n3 \"x\" inode 2",
		},
	},
	{
		"replaced target",
		[]ent{x("a"), {name: "b", typ: lnkT, link: "a"}, {name: "a", data: "new"}},
		[]string{root + "2 implied", "a 100644 0:0 1000.0 n1 \"new\"", "b" + file},
	},
	{
		"link out of a dropped directory",
		[]ent{x("d/a"), {name: "b", typ: lnkT, link: "d/a"}, {name: "d", typ: symT, link: "b"}},
		[]string{root + "2 implied", "b" + file, "d 120644 0:0 1000.0 n1 -> b"},
	},
	{
		"hard link to a symlink",
		[]ent{{name: "s", typ: symT, link: "../../x"}, {name: "t", typ: lnkT, link: "s"}},
		[]string{
			root + "2 implied", "s 120644 0:0 1000.0 n2 -> ../../x inode 2", "t 120644 0:0 1000.0 n2 -> ../../x inode 2",
		},
	},
	{
		"devices",
		[]ent{
			{name: "c", typ: typeChar, major: 1, minor: 3},
			{name: "b", typ: typeBlock, major: 0xabc, minor: 0xabcde},
			{name: "f", typ: typeFifo},
			{name: "z", typ: typeChar},
		},
		[]string{
			root + "2 implied", "b 60644 0:0 1000.0 n1 rdev 0xabcabcde", "c 20644 0:0 1000.0 n1 rdev 0x103", "f 10644 0:0 1000.0 n1",
			"z 20644 0:0 1000.0 n1 rdev 0x0",
		},
	},
	{
		"pax",
		[]ent{{
			name: strings.Repeat("n", 255), data: "x", uid: 1<<32 - 2, gid: 1 << 31, mode: 0o6755, mtime: time.Unix(-2, 750000000),
			pax: map[string]string{
				"SCHILY.xattr.security.capability": "\x01\x00\n=", "SCHILY.xattr.user.b": "1", "SCHILY.xattr.trusted.overlay.opaque": "y",
				"SCHILY.xattr.user.overlay.redirect": "/", "SCHILY.xattr.user.plyfs.x": "1", "LIBARCHIVE.xattr.user.a%20b": "aGk",
				"LIBARCHIVE.xattr.user.b": "Mg==",
			},
		}},
		[]string{
			root + "2 implied", strings.Repeat("n", 255) + " 106755 4294967294:2147483648 -2.750000000 n1 \"x\"" +
				" security.capability=\"\\x01\\x00\\n=\" user.a b=\"hi\" user.b=\"1\"",
		},
	},
}

// TestTree builds small archives and compares the whole tree.
func TestTree(t *testing.T) {
	for _, c := range treeCases {
		t.Run(c.name, func(t *testing.T) {
			got := walk(t, open(t, makeTar(t, c.ents...)))
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
