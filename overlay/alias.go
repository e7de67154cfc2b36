package overlay

import "golang.org/x/sys/unix"

// alias is a second name of an upper file, by which it is found when the name goes that it is known by. Without one the
// file would take a descriptor for as long as it is held, and a program that makes links to many files, then removes the
// first names, more than there are.
type alias struct {
	parent ID // held
	name   string
}

// addAlias remembers a name of a file that is known by another. The caller holds the lock of its directory.
func (u *Union) addAlias(id, parent ID, name string) {
	rec, known, ok := u.tab.getNamed(id)
	if !ok || rec.flags&(flagDir|flagIndexed|flagPinned|flagUnlinked) != 0 || rec.parent == parent && known == name {
		return
	}
	u.aliasMu.Lock()
	_, has := u.aliases[id]
	if !has {
		u.aliases[id] = alias{parent, name}
		u.tab.hold(parent)
	}
	u.aliasMu.Unlock()
	if !has {
		u.tab.update(id, func(r *record) { r.flags |= flagAliased })
	}
}

// takeAlias returns the alias of a file and forgets it; want, when not nil, says which one alone.
func (u *Union) takeAlias(id ID, want func(a alias) bool) (alias, bool) {
	u.aliasMu.Lock()
	defer u.aliasMu.Unlock()
	a, ok := u.aliases[id]
	if !ok || want != nil && !want(a) {
		return a, false
	}
	delete(u.aliases, id)
	u.tab.update(id, func(r *record) { r.flags &^= flagAliased })
	return a, true
}

// useAlias has a file known by its alias, since name in parent, by which it is known, is about to go. It reports whether
// there is one. That the alias does not go meanwhile is the kernel's doing, which locks a file whose name goes.
func (u *Union) useAlias(id, parent ID, name string) bool {
	a, ok := u.takeAlias(id, func(a alias) bool { return a != alias{parent, name} })
	if ok {
		u.Forget(u.tab.move(id, a.parent, a.name), 1)
		u.Forget(a.parent, 1)
	}
	return ok
}

// loseAlias forgets a name that is gone.
func (u *Union) loseAlias(id, parent ID, name string) {
	if a, ok := u.takeAlias(id, func(a alias) bool { return a == alias{parent, name} }); ok {
		u.Forget(a.parent, 1)
	}
}

// hasOtherNames reports whether what was found is an upper file that has other names than the one it was found by.
func (f *found) hasOtherNames() bool {
	return f.upper && !f.index && f.mode != unix.S_IFDIR && f.st.Nlink > 1
}
