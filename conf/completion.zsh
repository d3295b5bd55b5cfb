#compdef inosync
# Completion of inosync in zsh: a file _inosync in a directory of fpath. Debian's package has it in place.

_inosync_nodes() {
    local -a config names
    [[ -n ${opt_args[-c]} ]] && config=(-c ${(Q)opt_args[-c]})
    names=(${(f)"$(command inosync $config -s status --json 2>/dev/null </dev/null |
        sed -n 's/^ *"name": "\(.*\)",*$/\1/p' | sed 's/\\\(["\\]\)/\1/g')"})
    case ${opt_args[-s]} in
        (status|top|events|flush) ;;
        (resync|verify|diff|pause|resume) names+=(all) ;;
        (*) return 1 ;;
    esac
    compadd -a names
}

_inosync() {
    local -A opt_args
    _arguments -S \
        '-c[load configuration from FILE]:configuration:_files -g "*.py"' \
        '-d[daemonize]' \
        '-p[show each rsync call, and what it would do]' \
        '-t[check the configuration, and try each node]' \
        '--offline[with -t\: try no node]' \
        '--init[write a commented configuration]::configuration:_files -g "*.py"' \
        '--install-files[put units, completion and man pages in place]:directory:_files -/' \
        '--once[mirror everything in full, and exit]' \
        '--full[compare everything at the start]' \
        '--sender[be the sender NAME of a fleet, or ask it]:name' \
        '-v[print debugging information]' \
        '-s[ask or steer the daemon that runs]:command:(status top senders events flush resync verify diff pause resume hold release accept retry reload reopen stop)' \
        '--json[print what the daemon says as JSON]' \
        '--stage[of flush\: wait for the nodes of this stage only]:number' \
        '--timeout[of flush\: give up after so many seconds]:seconds' \
        '--wait[of verify and resync\: wait, and print what was found]' \
        '--lag[of status\: so many seconds behind count as level]:seconds' \
        '--version[show the version and exit]' \
        '(-h --help)'{-h,--help}'[show the options and exit]' \
        '1:node:_inosync_nodes'
}

_inosync "$@"
