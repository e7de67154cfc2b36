// Package format prints what commands list, as docker's --format has it: tables, Go templates and JSON. It owns the
// functions that templates may call, the forms' names and how a table's columns are laid out.
package format
