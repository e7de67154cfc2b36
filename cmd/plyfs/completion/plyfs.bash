# Completion of plyfs for bash. plyfs itself tells what can stand where; see `plyfs completion --help`.
_plyfs() {
    local line=${COMP_LINE:0:COMP_POINT} kind= cur word rest split=
    local -a words=()
    read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cur=${words[${#words[@]} - 1]}
    # readline takes what follows a colon or an equals sign for a word of its own.
    [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]] && split=${cur%"${cur##*:}"}
    [[ $COMP_WORDBREAKS == *=* && $cur == *=* && ${#split} -eq 0 ]] && split=${cur%"${cur##*=}"}
    COMPREPLY=()
    while IFS=$'\t' read -r word rest; do
        case $word in
        :*) kind=$word ;;
        *) COMPREPLY+=("${word#"$split"}") ;;
        esac
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    [[ $cur == -*=* ]] && cur=${cur#*=}
    case $kind in
    :files) compopt -o filenames 2>/dev/null; while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur") ;;
    :dirs) compopt -o filenames 2>/dev/null; while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -d -- "$cur") ;;
    esac
}
complete -F _plyfs plyfs
