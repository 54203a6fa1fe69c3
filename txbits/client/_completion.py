"""
Completion for shells, made from the parser of the command line.

What a shell offers is what the parser takes: there is no second list to keep.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

from attrs import frozen

#: Arguments whose metavar is one of these are names of files.
_FILES = ("FILE", "PATH")


@frozen
class Argument:
    """
    One argument of a command.

    :ivar names: The spellings of an option; none if it has a place instead.
    :ivar help: What it is for.
    :ivar metavar: What its value is called; ``None`` if it has none.
    :ivar words: What its value may be, where that is known.
    :ivar repeats: Whether it may be given several times.
    """

    names: Sequence[str]
    help: str
    metavar: str | None
    words: Sequence[str]
    repeats: bool

    @property
    def is_file(self) -> bool:
        """Whether its value is the name of a file."""
        return self.metavar in _FILES


def words(action: argparse.Action, names: Sequence[str]) -> None:
    """Have shells offer words for an argument that has no ``choices``."""
    vars(action)["words"] = names


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def helps(parser: argparse.ArgumentParser) -> dict[str, str]:
    """What the commands are for, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {one.dest: one.help or "" for one in action._choices_actions}
    return {}


def arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    """The arguments of a parser, in the order of its help."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        if action.help == argparse.SUPPRESS:
            continue
        takes_value = action.nargs != 0
        metavar = action.metavar or action.dest.upper()
        yield Argument(
            tuple(action.option_strings),
            formatter._expand_help(action) if action.help else "",
            str(metavar) if takes_value else None,
            [str(one) for one in action.choices or vars(action).get("words", ())],
            action.nargs in ("+", "*")
            or isinstance(action, (argparse._AppendAction, argparse._CountAction)),
        )


def bash(parser: argparse.ArgumentParser) -> str:
    """Write completion for bash."""
    function = f"_{re.sub('[^A-Za-z0-9]', '_', parser.prog)}"
    values: list[str] = []
    options: list[str] = []
    places: list[str] = []
    for command, one in commands(parser).items():
        known = list(arguments(one))
        spelled = " ".join(name for each in known for name in each.names)
        options.append(f"        {command}) options='{spelled}' ;;")
        for each in known:
            case = "|".join(f"{command}:{spelling}" for spelling in each.names)
            if each.names and each.metavar is not None:
                offer = _offer(each, function)
                values.append(f"        {case}) {offer or ':'}; return ;;")
        offers = [_offer(each, function) for each in known if not each.names]
        found = [offer for offer in dict.fromkeys(offers) if offer]
        if found:
            places.append(f"        {command}) {'; '.join(found)} ;;")
    return _BASH.format(
        name=parser.prog,
        function=function,
        commands=" ".join(commands(parser)),
        top=" ".join(one for each in arguments(parser) for one in each.names),
        options="\n".join(options),
        values="\n".join(values),
        places="\n".join(places),
    )


def _offer(argument: Argument, function: str) -> str:
    if argument.words:
        return f"{function}_words '{' '.join(argument.words)}'"
    return f"{function}_files" if argument.is_file else ""


_BASH = """\
# bash completion for {name}; eval "$({name} completion bash)" loads it.

{function}_words() {{
    COMPREPLY+=($(compgen -W "$1" -- "$current"))
}}

{function}_files() {{
    local found
    compopt -o filenames 2>/dev/null
    while IFS= read -r found; do
        COMPREPLY+=("$found")
    done < <(compgen -f -- "$current")
}}

{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command=${{COMP_WORDS[1]}} options=
    COMPREPLY=()
    # --option=value is three words.
    if [ "$current" = = ]; then
        current=
    elif [ "$previous" = = ]; then
        previous=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    if [ "$COMP_CWORD" = 1 ]; then
        {function}_words '{commands} {top}'
        return
    fi
    case $command:$previous in
{values}
    esac
    case $command in
{options}
    esac
    if [ "${{current#-}}" != "$current" ]; then
        {function}_words "$options"
        return
    fi
    case $command in
{places}
    esac
}}

complete -F {function} {name}
"""


def zsh(parser: argparse.ArgumentParser) -> str:
    """Write completion for zsh."""
    name = parser.prog
    about = helps(parser)
    described = "\n".join(
        f"        {_quoted(f'{_escaped(command)}:{about[command]}')}"
        for command in commands(parser)
    )
    cases = []
    for command, one in commands(parser).items():
        specs = [_spec(each) for each in arguments(one)]
        lines = " \\\n".join(f"                {spec}" for spec in specs)
        cases.append(
            f"        {command})\n            _arguments -s \\\n{lines}\n            ;;"
        )
    return _ZSH.format(name=name, described=described, cases="\n".join(cases))


def _spec(argument: Argument) -> str:
    value = ""
    if argument.metavar is not None:
        value = f":{_escaped(argument.metavar)}:{_zsh_offer(argument)}"
    if not argument.names:
        return _quoted(f"{'*' if argument.repeats else ''}{value}")
    help_ = _escaped(argument.help)
    if argument.repeats:
        spelled = [f"*{name}" for name in argument.names]
    else:
        others = " ".join(argument.names)
        spelled = [f"({others}){name}" for name in argument.names]
    return " ".join(_quoted(f"{one}[{help_}]{value}") for one in spelled)


def _zsh_offer(argument: Argument) -> str:
    if argument.words:
        return f"({' '.join(argument.words)})"
    return "_files" if argument.is_file else " "


def _escaped(text: str) -> str:
    return re.sub(r"([\\:\[\]])", r"\\\1", text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_ZSH = """\
#compdef {name}
# zsh completion for {name}: put it into a folder of $fpath, as _{name}.

_{name}() {{
    local -a described
    described=(
{described}
    )
    if (( CURRENT == 2 )); then
        _describe command described
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}

if [ "$funcstack[1]" = "_{name}" ]; then
    _{name} "$@"
else
    compdef _{name} {name}
fi
"""

#: What completion there is.
SHELLS = {"bash": bash, "zsh": zsh}
