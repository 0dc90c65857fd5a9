
# Bash splits JOB:PATH into words at the colon. The tool needs it as one word.
_metaservice() {
    local rest=$COMP_LINE head current word i at=0
    local -a joined=()
    for i in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[i]} head=
        # Parts of a word have no space between them.
        if ((i > 1)) && [[ $rest != [[:space:]]* && ( $word == :* || ${joined[-1]} == *: ) ]]; then
            head=${joined[-1]}
            joined[-1]+=$word
        else
            joined+=("$word")
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
        if ((i == COMP_CWORD)); then
            at=$((${#joined[@]} - 1)) current=$head$2
            if [[ $word == : ]]; then current=$head:; fi
        fi
    done
    local -a COMP_WORDS=("${joined[@]}")
    local COMP_CWORD=$at
    _clap_complete_metaservice "$1" "$current" "$3"
    # Bash replaces only the part after the last colon.
    if [[ ${COMPREPLY+set} && $COMP_WORDBREAKS == *:* && $current == *:* ]]; then
        head=${current%"${current##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$head"}")
    fi
}
