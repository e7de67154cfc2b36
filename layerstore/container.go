package layerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nameContainer = "container.json"
	// stagePrefix begins the name in ingest/ under which a container's directory is prepared.
	stagePrefix = "container-"
)

// containerName is docker's rule (daemon/names of moby).
var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CreateContainer makes a container with its directories upper (mode 0755), work and merged. It fills in ID, Created and,
// when empty, Name. From then on the container pins Manifest, Image and Layers, all of which must be in the store.
// Errors: ErrNameTaken, ErrInvalid for a name of another form, ErrNotFound naming what lacks, ErrNoSpace, ErrNotWritable,
// ctx's.
func (s *Store) CreateContainer(ctx context.Context, c Container) (Container, error) {
	if c.Name != "" {
		if err := checkContainerName(c.Name); err != nil {
			return Container{}, err
		}
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return Container{}, err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	if err := s.checkContent(c); err != nil {
		return Container{}, err
	}
	cs, err := s.Containers(ctx)
	if err != nil {
		return Container{}, err
	}
	if c.Name == "" {
		c.Name = freeName(cs)
	} else if err := checkNameFree(cs, c); err != nil {
		return Container{}, err
	}
	c.ID, c.Created = randomHex(32), time.Now().UTC()
	if err := s.placeContainer(c); err != nil {
		return Container{}, s.explain("making container "+c.Name, err)
	}
	return c, nil
}

func checkContainerName(name string) error {
	if len(name) > MaxNameLen || !containerName.MatchString(name) {
		return fmt.Errorf("container name %.100q: %w: it takes 2 to %d letters, digits and _ . - and begins with a letter or digit",
			name, ErrInvalid, MaxNameLen)
	}
	return nil
}

func checkNameFree(cs []Container, c Container) error {
	for _, o := range cs {
		if o.Name == c.Name && o.ID != c.ID {
			return fmt.Errorf("container name %s: %w by container %.12s: remove or rename that one, or choose another name", c.Name, ErrNameTaken, o.ID)
		}
	}
	return nil
}

// checkContent checks that what a container pins is there.
func (s *Store) checkContent(c Container) error {
	for _, d := range []Digest{c.Manifest, c.Image} {
		if _, err := hexOf(d); err != nil {
			return fmt.Errorf("container's image: %w", err)
		}
		if !s.HasBlob(d) {
			return fmt.Errorf("container's image: blob %s: %w in %s: pull the image again", d, ErrNotFound, s.root)
		}
	}
	if len(c.Layers) > MaxLayers {
		return fmt.Errorf("container of %d layers: %w: at most %d are taken", len(c.Layers), ErrTooLarge, MaxLayers)
	}
	for _, d := range c.Layers {
		h, err := hexOf(d)
		if err != nil {
			return fmt.Errorf("container's layer: %w", err)
		}
		if _, ok := isRegular(s.path(dirLayers, h+suffixTar)); !ok {
			return fmt.Errorf("container's layer %s: %w in %s: pull the image again", d, ErrNotFound, s.root)
		}
	}
	return nil
}

// placeContainer prepares the container's directory and renames it into place. The caller holds the store lock.
func (s *Store) placeContainer(c Container) (err error) {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	stage := s.path(dirIngest, stagePrefix+c.ID)
	if err := os.Mkdir(stage, dirMode); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(stage) // ours alone, and nothing hostile in it yet
		}
	}()
	for _, d := range []struct {
		name string
		mode uint32
	}{{"upper", 0o755}, {"work", 0o700}, {"merged", 0o755}} {
		if err := os.Mkdir(stage+"/"+d.name, os.FileMode(d.mode)); err != nil {
			return err
		}
		if err := unix.Chmod(stage+"/"+d.name, d.mode); err != nil { // the umask may have taken some
			return err
		}
	}
	if err := s.writeFile(stage+"/"+nameContainer, b); err != nil {
		return err
	}
	if err := os.Rename(stage, s.ContainerDir(c.ID)); err != nil {
		return err
	}
	return syncDir(s.path(dirContainers))
}

// ContainerDir is <root>/containers/<id>: container.json, upper, work and merged.
func (s *Store) ContainerDir(id string) string { return s.path(dirContainers, id) }

// Containers lists the containers, newest first. It takes no lock.
func (s *Store) Containers(ctx context.Context) ([]Container, error) {
	names, err := os.ReadDir(s.path(dirContainers))
	if err != nil {
		return nil, s.explain("listing the containers", err)
	}
	cs := make([]Container, 0, len(names))
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !isHex(n.Name(), 64) {
			continue
		}
		c, err := s.readContainer(n.Name())
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	slices.SortStableFunc(cs, func(a, b Container) int { return b.Created.Compare(a.Created) })
	return cs, nil
}

func (s *Store) readContainer(id string) (Container, error) {
	path := s.ContainerDir(id) + "/" + nameContainer
	b, err := readLimited(path, maxContainer)
	if errors.Is(err, fs.ErrNotExist) {
		return Container{}, fmt.Errorf("container %.12s: %w in %s", id, ErrNotFound, s.root)
	}
	if err != nil {
		return Container{}, s.explain("reading container "+id[:12], err)
	}
	var c Container
	err = json.Unmarshal(b, &c)
	if err == nil && c.ID != id {
		err = fmt.Errorf("it is of container %.12q", c.ID)
	}
	for _, d := range append([]Digest{c.Manifest, c.Image}, c.Layers...) {
		if err == nil {
			_, err = hexOf(d)
		}
	}
	if err != nil {
		return Container{}, damaged("%s is damaged: %v", path, err)
	}
	return c, nil
}

// Container finds a container by its ID, its name or the beginning of its ID, in this order. Errors: ErrNotFound,
// ErrAmbiguous, ErrCorrupt.
func (s *Store) Container(ctx context.Context, nameOrID string) (Container, error) {
	if isHex(nameOrID, 64) {
		if c, err := s.readContainer(nameOrID); !errors.Is(err, ErrNotFound) {
			return c, err
		}
	}
	cs, err := s.Containers(ctx)
	if err != nil {
		return Container{}, err
	}
	for _, c := range cs {
		if c.Name == nameOrID {
			return c, nil
		}
	}
	var found []Container
	for _, c := range cs {
		if nameOrID != "" && strings.HasPrefix(c.ID, nameOrID) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return Container{}, fmt.Errorf("container %.200q: %w in %s", nameOrID, ErrNotFound, s.root)
	case 1:
		return found[0], nil
	}
	return Container{}, fmt.Errorf("container ID %s: %w: it begins %.12s and %.12s: give more digits", nameOrID, ErrAmbiguous, found[0].ID, found[1].ID)
}

// UpdateContainer replaces the record of an existing container, which c.ID names. Errors: ErrNotFound, ErrNameTaken and
// those of CreateContainer.
func (s *Store) UpdateContainer(ctx context.Context, c Container) error {
	if err := checkContainerName(c.Name); err != nil {
		return err
	}
	l, err := s.lockStore(ctx, true)
	if err != nil {
		return err
	}
	defer l.Release() //nolint:errcheck // closing a lock file loses nothing
	cs, err := s.Containers(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(cs, func(o Container) bool { return o.ID == c.ID }) {
		return fmt.Errorf("container %.12q: %w in %s", c.ID, ErrNotFound, s.root)
	}
	if err := checkNameFree(cs, c); err != nil {
		return err
	}
	if err := s.checkContent(c); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.explain("writing container "+c.Name, s.writeFile(s.ContainerDir(c.ID)+"/"+nameContainer, b))
}
