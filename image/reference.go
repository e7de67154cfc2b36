package image

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/layerstore"
)

// Reference is an image's name in full, as the docker CLI completes it: "debian" is docker.io/library/debian:latest.
type Reference struct {
	Domain string        // registry as in the name: "docker.io", "127.0.0.1:5000"
	Path   string        // repository: "library/debian"
	Tag    string        // "" in a reference by digest alone
	Digest digest.Digest // of a manifest or index, "" in a reference by tag alone
}

// ParseReference completes a name, name:tag, name@digest or name:tag@digest; without tag and digest the tag is "latest".
// A string that is no reference gives ErrReference.
func ParseReference(s string) (Reference, error) {
	if len(s) > layerstore.MaxRefLen-len("docker.io/library/:latest") { // so that it can be stored when completed
		return Reference{}, &kindError{kind: ErrReference, msg: fmt.Sprintf("%q…: a reference of %d bytes is too long", clean(s[:64]), len(s))}
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, &kindError{kind: ErrReference, msg: fmt.Sprintf("%q: %s", clean(s), clean(err.Error())), cause: err}
	}
	return fromNamed(reference.TagNameOnly(named))
}

func fromNamed(named reference.Named) (Reference, error) {
	r := Reference{Domain: reference.Domain(named), Path: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
		if r.Digest.Algorithm() != digest.SHA256 || r.Digest.Validate() != nil {
			return Reference{}, &kindError{kind: ErrReference, msg: fmt.Sprintf("%s: only sha256 digests are supported", named)}
		}
	}
	return r, nil
}

// Name is the repository with its registry: "docker.io/library/debian".
func (r Reference) Name() string { return r.Domain + "/" + r.Path }

// String is the reference in full: "docker.io/library/debian:12", with "@sha256:…" when it has a digest.
func (r Reference) String() string { return r.Name() + r.suffix() }

// Familiar is the reference as docker prints it: "debian:12".
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// FamiliarName is the repository as docker prints it: "debian".
func (r Reference) FamiliarName() string {
	if r.Domain != "docker.io" {
		return r.Name()
	}
	if official, ok := strings.CutPrefix(r.Path, "library/"); ok && !strings.Contains(official, "/") {
		return official
	}
	return r.Path
}

func (r Reference) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// storeName is the name under which a pull stores the image: docker drops the tag of name:tag@digest, since the tag may
// stand for another image by now.
func (r Reference) storeName() string {
	if r.Digest != "" {
		return ""
	}
	return r.String()
}

// identifier is what the registry is asked for: the digest if there is one, else the tag.
func (r Reference) identifier() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// repository is the reference's repository on the wire, where docker.io is index.docker.io. The registry is split off
// here and not by name.NewRepository, which takes "localhost/x" for a repository of Docker Hub.
func (r Reference) repository(insecure bool) (name.Repository, error) {
	var opts []name.Option
	if insecure || isLoopback(r.Domain) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(r.Domain, opts...)
	if err != nil {
		return name.Repository{}, &kindError{kind: ErrReference, msg: fmt.Sprintf("%s: %s", r, clean(err.Error())), cause: err}
	}
	return reg.Repo(r.Path), nil
}

// isLoopback reports whether a registry ("host" or "host:port") is of those that docker speaks plain http to: localhost,
// 127.0.0.0/8 and ::1.
func isLoopback(domain string) bool {
	host := hostOf(domain)
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// hostOf takes the port and the brackets of an IPv6 address off.
func hostOf(domain string) string {
	if rest, ok := strings.CutPrefix(domain, "["); ok {
		host, _, _ := strings.Cut(rest, "]")
		return host
	}
	if strings.Count(domain, ":") > 1 {
		return domain
	}
	host, _, _ := strings.Cut(domain, ":")
	return host
}
