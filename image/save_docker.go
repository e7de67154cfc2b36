package image

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// dockerEntry is an image in a docker archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker writes configs and layers, each once however many images have it, then manifest.json and repositories. Loaders
// read manifest.json wherever it is; repositories is for those that list an archive's names.
func (a *archive) docker(images []saved) error {
	var entries []dockerEntry
	repositories := map[string]map[string]string{}
	for _, img := range images {
		e := dockerEntry{Config: img.ID.Encoded() + ".json", Layers: []string{}}
		if err := a.bytes(e.Config, img.Config); err != nil {
			return err
		}
		top := ""
		for _, l := range img.Layers {
			name := l.DiffID.Encoded() + ".tar"
			if err := a.layer(name, l.DiffID); err != nil {
				return err
			}
			e.Layers = append(e.Layers, name)
			top = l.DiffID.Encoded()
		}
		for _, n := range img.names {
			e.RepoTags = append(e.RepoTags, n.Familiar())
			if top == "" {
				continue
			}
			if repositories[n.FamiliarName()] == nil {
				repositories[n.FamiliarName()] = map[string]string{}
			}
			repositories[n.FamiliarName()][n.Tag] = top
		}
		entries = append(entries, e)
	}
	if err := a.json("manifest.json", entries); err != nil {
		return err
	}
	if len(repositories) == 0 {
		return nil
	}
	return a.json("repositories", repositories)
}

// json writes v; maps come out sorted.
func (a *archive) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.bytes(name, append(b, '\n'))
}

func (a *archive) layer(name string, diffID digest.Digest) error {
	if a.seen[name] {
		return nil
	}
	a.seen[name] = true
	f, err := a.st.OpenTar(diffID)
	if err != nil {
		return err
	}
	return a.file(name, f, diffID)
}
