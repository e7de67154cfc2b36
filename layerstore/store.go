package layerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
)

// The names in a store's root.
const (
	nameLayout    = "oci-layout"
	nameIndex     = "index.json"
	nameLock      = "lock"
	dirBlobs      = "blobs/sha256"
	dirLayers     = "layers/sha256"
	dirIngest     = "ingest"
	dirContainers = "containers"
	dirTrash      = "trash"

	// Prefixes and suffixes in ingest/. What begins with the 64 digits of a digest belongs to who holds <digits>.lock.
	tmpPrefix     = "tmp-"
	leasePrefix   = "lease-"
	suffixLock    = ".lock"
	suffixPartial = ".partial"
	suffixTar     = ".tar"
	suffixIdx     = ".idx"
	suffixDiff    = ".diffid"

	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	emptyIndex    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
)

// Store is an open store. Its methods may be called from any goroutine, and other processes may use the store meanwhile.
type Store struct {
	root string
	log  *logrus.Logger
}

// Open opens the store at root and makes it, with directories of mode 0700, when it is absent. It does no work that
// grows with the store. Errors: ErrNotWritable; ErrInvalid for a directory that holds something else; ErrCorrupt for a
// layout of an unknown version.
func Open(root string) (*Store, error) {
	if root == "" {
		return nil, fmt.Errorf("the store needs a directory: %w", ErrInvalid)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", root, err)
	}
	s := &Store{root: abs, log: logrus.StandardLogger()}
	err = s.checkLayout()
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.create(); err != nil {
			return nil, s.explain("making the store", err)
		}
		return s, nil
	}
	if err != nil {
		return nil, s.explain("opening the store", err)
	}
	return s, nil
}

// Root is the absolute path of the store.
func (s *Store) Root() string { return s.root }

// Close releases what the store holds. Sessions, leases, locks and open layers end by their own Close or Release.
func (s *Store) Close() error { return nil }

func (s *Store) path(elem ...string) string {
	return s.root + "/" + strings.Join(elem, "/")
}

// checkLayout reads oci-layout, which create writes last.
func (s *Store) checkLayout() error {
	b, err := readLimited(s.path(nameLayout), 4096)
	if err != nil {
		return err
	}
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return damaged("%s is damaged: %v", s.path(nameLayout), err)
	}
	if !strings.HasPrefix(l.Version, "1.") {
		return damaged("%s: layout version %.20q is not known here", s.path(nameLayout), l.Version)
	}
	return nil
}

func (s *Store) create() error {
	if err := os.MkdirAll(s.root, dirMode); err != nil {
		return err
	}
	if err := s.refuseForeign(); err != nil {
		return err
	}
	l, err := s.lockStore(context.Background(), true)
	if err != nil {
		return err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	for _, d := range []string{"blobs", dirBlobs, "layers", dirLayers, dirIngest, dirContainers, dirTrash} {
		if err := os.Mkdir(s.path(d), dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if _, ok := isRegular(s.path(nameIndex)); !ok {
		if err := s.writeFile(s.path(nameIndex), []byte(emptyIndex)); err != nil {
			return err
		}
	}
	if err := s.writeFile(s.path(nameLayout), []byte(layoutContent)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.root))
}

// refuseForeign keeps a mistyped --root from filling someone's directory. A store that was being made when its maker was
// killed has nothing but our own names.
func (s *Store) refuseForeign() error {
	names, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, n := range names {
		switch n.Name() {
		case nameIndex, nameLayout, nameLock, "blobs", "layers", dirIngest, dirContainers, dirTrash, "lost+found":
		default:
			return &storeError{fmt.Sprintf("%s is not a plyfs store and not empty (it holds %q): choose another directory with --root",
				s.root, n.Name()), []error{ErrInvalid}}
		}
	}
	return nil
}

// hexOf returns the 64 digits of a valid SHA-256 digest, which are safe as a file name.
func hexOf(d Digest) (string, error) {
	h, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || !isHex(h, 64) {
		return "", fmt.Errorf("digest %.100q: %w: not sha256: and 64 lower-case hexadecimal digits", string(d), ErrInvalid)
	}
	return h, nil
}

func isHex(h string, length int) bool {
	if len(h) != length {
		return false
	}
	for i := range len(h) {
		if c := h[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
