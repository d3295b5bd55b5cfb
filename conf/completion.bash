# Completion of inosync in bash. Debian's package has it in place; else source it, or copy it to
# /usr/share/bash-completion/completions/inosync

_inosync_nodes() { # CONFIGURATION...: the names of the nodes of the daemon that runs for it, one a line
    command inosync "$@" -s status --json 2>/dev/null </dev/null |
        sed -n 's/^ *"name": "\(.*\)",*$/\1/p' | sed 's/\\\(["\\]\)/\1/g'
}

_inosync() {
    # Not as readline has cut it: nodes have colons in them, which are in COMP_WORDBREAKS.
    local line=${COMP_LINE:0:COMP_POINT} words=() word config=() command='' node='' previous='' quoted=''
    local options='-c -d --full -h --help --init --install-files --json --lag --offline --once -p -s --sender --stage -t --timeout -v --version --wait'
    local commands='status top senders events flush resync verify diff pause resume hold release accept retry reload reopen stop'
    COMPREPLY=()
    read -ra words <<<"$line" # without a look at quotes: completes plain words
    [[ $line == *[[:space:]] ]] && words+=('')
    local current=${words[${#words[@]} - 1]} i
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        case $word in
            -c) config=(-c "${words[i + 1]}") && ((i++)) ;;
            -s) command=${words[i + 1]} && ((i++)) ;;
            --timeout | --lag | --stage | --install-files) ((i++)) ;;
            -*) ;;
            *) node=$word ;;
        esac
    done
    previous=${words[${#words[@]} - 2]}
    case $previous in
        --install-files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            return
            ;;
        -c | --init)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -X '!*.py' -- "$current"; compgen -d -- "$current")
            return
            ;;
        -s)
            mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
            return
            ;;
        --timeout | --lag | --stage) return ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        return
    fi
    [[ -n $node ]] && return
    case $command in
        status | top | events | flush) ;;
        resync | verify | diff | pause | resume) [[ all == "$current"* ]] && COMPREPLY=(all) ;;
        *) return ;;
    esac
    # What stands before the last colon is a word of its own for readline, and is not replaced.
    local before=''
    [[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && before=${current%"${current##*:}"}
    while IFS= read -r word; do
        printf -v quoted %q "$word"
        [[ $quoted == "$current"* || $word == "$current"* ]] && COMPREPLY+=("${quoted#"$before"}")
    done < <(_inosync_nodes ${config[@]+"${config[@]}"})
}

complete -F _inosync inosync
