package layerstore

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// A container that is given no name gets a quality and a person of computing or the sciences, or a layered thing.
var (
	nameQualities = strings.Fields(`able agile airy amber arctic autumn balmy bold brave breezy bright brisk calm careful
		cheerful clear clever cosy crisp curious daring dashing deft eager early easy elastic fair fast fearless fine fleet
		fluent fond frank free fresh gentle giddy glad golden graceful grand happy hardy honest humble jolly keen kind
		lively lucid lucky lunar mellow merry mighty mild modest neat nimble noble patient placid plain playful polite proud
		quick quiet rapid ready robust rosy serene sharp silent silver simple sleek smooth snappy solar solid spry steady
		sturdy subtle sunny swift tender tidy tough trusty upbeat vivid warm wary witty zesty`)
	nameSurnames = strings.Fields(`abel ampere babbage backus bardeen bayes bell bohr boole borg brahe cantor carson cerf
		church codd conway cook coulomb cray curie dalton darwin dijkstra dirac easley edison einstein elion engelbart
		erdos euclid euler faraday fermat fermi feynman floyd franklin galileo galois gauss goedel goldberg hamilton hamming
		hawking hertz hilbert hoare hodgkin hopper hubble huffman huygens hypatia joule kay keller kepler kernighan khayyam
		kilby knuth kovalevsky lamarr lamport leibniz liskov lorenz lovelace lumiere maxwell mccarthy mendel minsky moore
		morse napier naur newton noether nobel ohm pascal pasteur pauli payne perlman planck poincare postel ramanujan
		ride ritchie rivest sagan shannon shaw stallman stroustrup swartz tesla thompson torvalds turing volta
		wilkes wing wirth wozniak yonath`)
)

// freeName invents a name that no container has.
func freeName(cs []Container) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(cs, func(c Container) bool { return c.Name == name })
	}
	for i := 0; ; i++ {
		name := nameQualities[rand.IntN(len(nameQualities))] + "_" + nameSurnames[rand.IntN(len(nameSurnames))] //nolint:gosec // no secret
		if i > 8 {
			name += strconv.Itoa(rand.IntN(i * i * i)) //nolint:gosec // no secret
		}
		if !taken(name) {
			return name
		}
	}
}
