#compdef plyfs
# Completion of plyfs for zsh. plyfs itself tells what can stand where; see `plyfs completion --help`.
_plyfs() {
    local kind= line word
    local -a found
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        :*) kind=$line ;;
        ?*)
            word=${line%%$'\t'*}
            found+=("${word//:/\\:}:${line#*$'\t'}")
            ;;
        esac
    done
    (( $#found )) && _describe 'plyfs' found
    case $kind in
    :files) compset -P '-*='; _files ;;
    :dirs) compset -P '-*='; _files -/ ;;
    esac
}
if [[ $funcstack[1] == _plyfs ]]; then
    _plyfs "$@"
else
    compdef _plyfs plyfs
fi
