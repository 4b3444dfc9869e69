package cli

import (
	"fmt"
	"io"
)

// writeCompletion prints the script that makes a shell ask `strake __complete`.
func writeCompletion(w io.Writer, shell string) error {
	scripts := map[string]string{
		"bash": bashScript, "zsh": zshScript, "fish": fishScript, "powershell": powershellScript,
	}
	script, ok := scripts[shell]
	if !ok {
		return fmt.Errorf("completion %q: want bash, zsh, fish or powershell", shell)
	}
	_, err := io.WriteString(w, script)
	return err
}

// Bash breaks words at "=" and ":", which names of images and values of flags contain: the words
// are put together again from the line, and what bash will not replace is cut from the candidates.
const bashScript = `# bash completion for strake: source this file, or put it into the directory of
# bash-completion as "strake"
_strake() {
    local line="${COMP_LINE:0:$COMP_POINT}" words cur prefix candidate
    read -ra words <<<"$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    cur="${words[${#words[@]}-1]}"
    prefix=""
    if [[ "$cur" == *[:=]* ]]; then
        local last="${COMP_WORDS[COMP_CWORD]}"
        case "$last" in
        [:=]*) prefix="$cur" ;;
        *) prefix="${cur%"$last"}" ;;
        esac
    fi
    COMPREPLY=()
    while IFS= read -r candidate; do
        case "$candidate" in
        :files) compopt -o default 2>/dev/null; continue ;;
        :dirs) compopt -o dirnames 2>/dev/null; continue ;;
        esac
        candidate="${candidate%%$'\t'*}"
        [[ "$candidate" == *= ]] && compopt -o nospace 2>/dev/null
        COMPREPLY+=("${candidate#"$prefix"}")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _strake strake
`

const zshScript = `#compdef strake
# zsh completion for strake: put this file into a directory of $fpath as "_strake"
_strake() {
    local -a candidates
    local line value
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case "$line" in
        '') ;;
        :files) _files ;;
        :dirs) _files -/ ;;
        *$'\t'*)
            value="${line%%$'\t'*}"
            candidates+=("${value//:/\\:}:${line#*$'\t'}")
            ;;
        *) candidates+=("${line//:/\\:}") ;;
        esac
    done
    (( ${#candidates} )) && _describe 'strake' candidates
}
if [ "$funcstack[1]" = "_strake" ]; then
    _strake "$@"
else
    compdef _strake strake
fi
`

const fishScript = `# fish completion for strake: put this file into ~/.config/fish/completions
# as "strake.fish"
function __strake_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :dirs
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c strake -f -a '(__strake_complete)'
`

const powershellScript = `# PowerShell completion for strake: run this file in $PROFILE
Register-ArgumentCompleter -Native -CommandName strake -ScriptBlock {
    param($word, $ast, $cursor)
    $words = @($ast.CommandElements | Where-Object {
        $_.Extent.EndOffset -lt $cursor -or ($_.Extent.EndOffset -eq $cursor -and $word -eq '')
    } | ForEach-Object { "$_" })
    $arguments = @($words | Select-Object -Skip 1) + @($(if ($word) { $word } else { '""' }))
    & $words[0] __complete @arguments 2>$null | Where-Object {
        $_ -notmatch '^:'
    } | ForEach-Object {
        $value, $about = $_ -split [char]9, 2
        if (-not $about) { $about = $value }
        [System.Management.Automation.CompletionResult]::new(
            $value, $value, 'ParameterValue', $about
        )
    }
}
`
