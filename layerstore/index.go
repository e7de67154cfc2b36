package layerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations of an entry of index.json. Those of the prefix io.plyfs. are ours.
const (
	annotationName        = v1.AnnotationRefName     // the full reference, as skopeo's and crane's oci: transports look it up
	annotationRepoDigests = "io.plyfs.repo-digests"  // space-separated
	annotationID          = "io.plyfs.image-id"      // digest of the config
	annotationManifest    = "io.plyfs.manifest"      // digest of the image's own manifest when it is not an OCI one
	annotationParent      = "io.plyfs.parent"        // ID of the image that it was made from here
	annotationTagged      = "io.plyfs.tagged"        // when it was given a name last, RFC 3339
	annotationSize        = "io.plyfs.unpacked-size" // sum of the uncompressed tars, decimal
)

// entry is an image of index.json: the entries of one manifest taken together. skopeo looks at OCI manifests alone, so for
// an image that came with a Docker manifest desc is that of an OCI manifest of the same config and layers, made here.
type entry struct {
	manifest    Digest // as it came; desc.Digest unless an annotation says otherwise
	desc        v1.Descriptor
	names       []string
	repoDigests []string
}

// index is index.json: one entry a manifest, in the order of the file.
type index struct {
	raw     v1.Index
	entries []*entry
}

// readIndex reads index.json. It needs no lock: the file is replaced as a whole.
func (s *Store) readIndex() (*index, error) {
	b, err := readLimited(s.path(nameIndex), maxIndexSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged("%s is missing: the store is damaged", s.path(nameIndex))
	}
	if err != nil {
		return nil, s.explain("reading the list of images", err)
	}
	ix := &index{}
	var ok bool
	if ix.raw, ok = scanIndex(b); !ok {
		if err := json.Unmarshal(b, &ix.raw); err != nil {
			return nil, damaged("%s is damaged: %v", s.path(nameIndex), err)
		}
	}
	byDigest := make(map[Digest]*entry, len(ix.raw.Manifests))
	ix.entries = make([]*entry, 0, len(ix.raw.Manifests))
	for _, d := range ix.raw.Manifests {
		own := d.Digest
		if a := d.Annotations[annotationManifest]; a != "" {
			own = Digest(a)
		}
		for _, x := range [2]Digest{d.Digest, own} {
			if _, err := hexOf(x); err != nil {
				return nil, damaged("%s is damaged: %v", s.path(nameIndex), err)
			}
		}
		e := byDigest[own]
		name, repoDigests := d.Annotations[annotationName], d.Annotations[annotationRepoDigests]
		if e == nil {
			e = &entry{manifest: own, desc: d}
			delete(e.desc.Annotations, annotationName)
			delete(e.desc.Annotations, annotationRepoDigests)
			byDigest[own] = e
			ix.entries = append(ix.entries, e)
		}
		if name != "" {
			e.names = addSorted(e.names, name)
		}
		for r := range strings.FieldsSeq(repoDigests) {
			e.repoDigests = addSorted(e.repoDigests, r)
		}
	}
	ix.raw.Manifests = nil
	return ix, nil
}

// writeIndex replaces index.json. The caller holds the store lock exclusively since before readIndex.
func (s *Store) writeIndex(ix *index) error {
	out := ix.raw
	out.SchemaVersion = 2
	out.MediaType = v1.MediaTypeImageIndex
	out.Manifests = []v1.Descriptor{}
	for _, e := range ix.entries {
		names := e.names
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			d := e.desc
			d.Annotations = maps.Clone(e.desc.Annotations)
			if d.Annotations == nil {
				d.Annotations = map[string]string{}
			}
			if name != "" {
				d.Annotations[annotationName] = name
			}
			if len(e.repoDigests) > 0 {
				d.Annotations[annotationRepoDigests] = strings.Join(e.repoDigests, " ")
			}
			out.Manifests = append(out.Manifests, d)
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if len(b) > maxIndexSize {
		return fmt.Errorf("the list of images would have %d bytes: %w: remove some", len(b), ErrTooLarge)
	}
	return s.explain("writing the list of images", s.writeFile(s.path(nameIndex), b))
}

// find returns the entry of a manifest, nil if there is none.
func (ix *index) find(d Digest) *entry {
	for _, e := range ix.entries {
		if e.manifest == d {
			return e
		}
	}
	return nil
}

// named returns the entry that has the name, nil if there is none.
func (ix *index) named(name string) *entry {
	for _, e := range ix.entries {
		if slices.Contains(e.names, name) {
			return e
		}
	}
	return nil
}

// setName gives e the name and takes it from who had it, which stays without, as docker's dangling images do.
func (ix *index) setName(e *entry, name string) {
	if old := ix.named(name); old != nil && old != e {
		old.removeName(name)
	}
	if !slices.Contains(e.names, name) && e.desc.Annotations != nil {
		e.desc.Annotations[annotationTagged] = time.Now().UTC().Format(time.RFC3339Nano)
	}
	e.names = addSorted(e.names, name)
}

func (e *entry) removeName(name string) {
	e.names = slices.DeleteFunc(e.names, func(n string) bool { return n == name })
}

func addSorted(list []string, s string) []string {
	i, ok := slices.BinarySearch(list, s)
	if ok {
		return list
	}
	return slices.Insert(list, i, s)
}
