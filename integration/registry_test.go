package integration

import (
	"testing"

	"github.com/plyfs/plyfs/integration/tinyimage"
)

// startRegistry starts a registry on loopback that lives as long as the test, and returns its host:port.
func startRegistry(t testing.TB) string {
	t.Helper()
	address, stop, err := tinyimage.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return address
}

// pushImage makes an image of these layers, bottom first, and pushes it as host/repo:tag.
func pushImage(t testing.TB, ref string, layers ...[]tinyimage.Entry) {
	t.Helper()
	if err := tinyimage.Push(t.Context(), ref, layers...); err != nil {
		t.Fatal(err)
	}
}

// smallLower is the lower layer of smallImage.
var smallLower = []tinyimage.Entry{
	{Path: "etc/"},
	{Path: "etc/motd", Data: "lower\n"},
	{Path: "etc/gone", Data: "gone\n"},
	{Path: "tmp/", Mode: 0o1777},
}

// smallImage pushes an image of two layers, the upper of which replaces, deletes and adds, and returns its reference.
func smallImage(t testing.TB, registry string) string {
	t.Helper()
	ref := registry + "/small:1"
	pushImage(t, ref, smallLower, []tinyimage.Entry{
		{Path: "etc/motd", Data: "upper\n"},
		{Path: "etc/.wh.gone"},
		{Path: "etc/new", Data: "new\n"},
	})
	return ref
}

// pulled is a store that has smallImage, and the image's reference.
func pulled(t *testing.T) (*store, string) {
	t.Helper()
	s := newStore(t)
	ref := smallImage(t, startRegistry(t))
	s.ok("pull", "-q", ref)
	return s, ref
}
