# Completion of plyfs for fish. plyfs itself tells what can stand where; see `plyfs completion --help`.
function __plyfs_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l value (string replace -r '^-[^=]*=' '' -- "$current")
    set -l option (string sub -l (math (string length -- "$current") - (string length -- "$value")) -- "$current")
    for line in ($words[1] __complete $words[2..] "$current" 2>/dev/null)
        switch $line
            case ':files'
                printf '%s\n' "$option"(__fish_complete_path "$value")
            case ':dirs'
                printf '%s\n' "$option"(__fish_complete_directories "$value")
            case ':*'
            case '*'
                echo $line
        end
    end
end
complete -c plyfs -f -a '(__plyfs_complete)'
