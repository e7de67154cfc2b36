// Package image owns what docker calls an image: references as the docker CLI takes them, the way from a registry into
// the store (Pull) and from the store into an archive (Save), the choice of a platform, and the rules by which a name or
// an ID finds an image (Resolve, List, Remove). It keeps nothing itself: all that lasts is in a layerstore.Store.
//
// Whatever a registry sends is untrusted: manifests, configs and error texts have limits, every byte is checked against
// the digest that named it, and texts are cleaned before they reach a terminal.
package image
