"""
``txbits completion SHELL``.

shtab makes the script from the parser of the command line. What is added for bash is
the words of ``--option=value`` and of URLs, which bash splits.
"""

from __future__ import annotations

import argparse

from txbits.client._display import write
from txbits.client.commands._command import Command, Context, Status, UsageError

#: What offers the names of files.
_FILES = {"bash": "_txbits_files", "zsh": "_files"}

# bash splits words at "=" and ":"; shtab counts each part as an argument. Its function
# for files splits names at blanks.
_BASH = """
_txbits_files() {
    compgen -f -- "$1"
}

_txbits() {
    local word previous= index=-1 words=()
    local -i at=COMP_CWORD current=COMP_CWORD
    for ((at = 0; at < ${#COMP_WORDS[@]}; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $word = = && $previous = -* ]]; then
            # The value of an option is a word of its own.
            word=
            ((at == COMP_CWORD)) && words[++index]=
        elif [[ $word = [:=] || $previous = *[:=] ]] && ((index > 0)); then
            words[index]+=$word
        else
            words[++index]=$word
        fi
        previous=$word
        ((at == COMP_CWORD)) && current=index
    done
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$current
    _shtab_txbits
}
complete -o bashdefault -F _txbits txbits
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", metavar="SHELL", choices=["bash", "zsh"], help="bash or zsh"
    )


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """
    Write the script that makes a shell complete the words of a command line.

    :raises UsageError: If shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise UsageError("completion requires: pip install 'txbits[cli]'") from None
    _prepare(parser)
    found = shtab.complete(parser, shell)
    # For nargs="+" shtab offers only the first of the files.
    return found + _BASH if shell == "bash" else found.replace('"(*):', '"*:')


def _prepare(parser: argparse.ArgumentParser) -> None:
    """Mark names of files, and describe commands briefly, for a menu."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action._choices_actions:
                command = action.choices[one.dest]
                command.description = one.help
                _prepare(command)
        elif action.metavar in ("FILE", "PATH"):
            vars(action)["complete"] = _FILES


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    write(context.out, script(options.shell, options.parser))
    return Status.DONE


COMMAND = Command(
    name="completion",
    help="print a shell completion script",
    description="Print the script that makes a shell complete the commands and options "
    'of txbits. For bash, add eval "$(txbits completion bash)" to ~/.bashrc. For zsh, '
    "write it to a file named _txbits in a folder of $fpath. Requires pip install "
    "'txbits[cli]'.",
    arguments=_arguments,
    perform=_perform,
    statuses=(),
)
