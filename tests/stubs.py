"""The stub of the main namespace, for signature help and hovers: run this to write it.

A class with declared fields has them as parameters, and a prebuilt chain has its arguments, each with what the field
that it goes to declares: meaning, symbol, range and default. All other names are imported from their modules.
"""

import ast
import dataclasses
import functools
import inspect
import textwrap
from pathlib import Path
from typing import Any

import chainax as cx
from chainax import chains
from chainax.core.values.contents import code
from chainax.core.values.value import Value, meaning

SRC = Path(__file__).parent.parent / "src"
STUB = SRC / "__init__.pyi"

TYPES = {
    "Hyper": "HyperLike",
    "OptionalHyper": "HyperLike | None",
    "Number": "float | jax.Array | np.ndarray",
    **{name: name for name in ("str", "int", "bool", "float", "str | None", "int | None")},
}
"""The types of parameters, by the annotations of their fields. Others are `Any`."""


def sources(module: str) -> dict[str, str]:
    """The module that each name is imported from, in a module of the package."""
    nodes = ast.parse((SRC / module).read_text(encoding="utf-8")).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: f".{node.module or ''}" for node in imports for alias in node.names}


NAMES = sources("__init__.py")
FUNCTIONS = {node.name: node for node in ast.parse(inspect.getsource(chains)).body if isinstance(node, ast.FunctionDef)}
CHAINS = [name for name in cx.__all__ if NAMES.get(name) == ".chains"]
CLASSES = [
    name
    for name in cx.__all__
    if isinstance(x := getattr(cx, name), type) and issubclass(x, Value) and dataclasses.is_dataclass(x)
    if {*inspect.signature(x).parameters} <= {field.name for field in dataclasses.fields(x)}
]


def stub() -> str:
    """What the stub should be."""
    others = {name: NAMES[name] for name in cx.__all__ if name not in (*CHAINS, *CLASSES)}
    annotations = {
        node.id
        for name in CHAINS
        for a in (*FUNCTIONS[name].args.args, *FUNCTIONS[name].args.kwonlyargs)
        if a.annotation
        for node in ast.walk(a.annotation)
        if isinstance(node, ast.Name)
    }
    private = {name: module for name, module in sources("chains.py").items() if name in annotations - {*cx.__all__}}
    lines = [
        f'"""{cx.__doc__}"""',
        "",
        "# Written by tests/stubs.py: do not edit.",
        "",
        "from typing import Any",
        "",
        "import jax",
        "import numpy as np",
        "",
        "from . import flax as flax",
        "from . import torch as torch",
        *(f"from {module} import {name} as {name}" for name, module in sorted(others.items())),
        *(f"from {NAMES[name]} import {name} as _{name}" for name in sorted(CLASSES)),
        *(f"from {module} import {name}" for name, module in sorted(private.items())),
        "",
        "__version__: str",
        f"__all__ = {[*cx.__all__]!r}",
        *("\n" + class_of(name) for name in sorted(CLASSES)),
        *("\n" + function_of(name) for name in sorted(CHAINS)),
    ]
    return "\n".join(lines) + "\n"


def class_of(name: str) -> str:
    """A class, with its declared fields as the parameters of ``__init__``."""
    cls = getattr(cx, name)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    parameters, documents = ["self"], []
    for parameter in inspect.signature(cls).parameters.values():
        field = fields[parameter.name]
        if parameter.name == "storage":  # which `store` sets
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        default = "" if parameter.default is parameter.empty else f" = {plain(code(parameter.default))}"
        parameters.append(f"{parameter.name}: {type_of(field)}{default}")
        documents.append(document(parameter.name, field, default and code(parameter.default)))
    text = (cls.__doc__ or "").partition("\n\nFields:\n")[0]
    init = f"def __init__({', '.join(parameters)}) -> None: ..."
    return f"class {name}(_{name}):\n{indented(documented(text, documents))}\n    {init}"


def type_of(field: dataclasses.Field[Any]) -> str:
    """The type of a parameter."""
    if field.type == "Number" and not isinstance(field.default, float | type(dataclasses.MISSING)):
        return "Any"
    return TYPES.get(str(field.type), "Any")


def function_of(name: str) -> str:
    """A prebuilt chain."""
    function, node = getattr(cx, name), FUNCTIONS[name]
    parameters, documents = [], []
    for parameter, x in zip(inspect.signature(function).parameters.values(), (*node.args.args, *node.args.kwonlyargs)):
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        default = "" if parameter.default is parameter.empty else f" = {plain(code(parameter.default))}"
        parameters.append(f"{x.arg}: {ast.unparse(x.annotation) if x.annotation else 'Any'}{default}")
        documents.append(document(x.arg, field_of(name, x.arg), default and code(parameter.default)))
    text = documented(inspect.cleandoc(function.__doc__ or ""), documents)
    return f"def {name}({', '.join(parameters)}) -> chain:\n{indented(text)}"


def document(name: str, field: dataclasses.Field[Any] | str, default: str) -> str:
    """The line of an argument: its meaning, symbol, range and default."""
    if isinstance(field, str):
        told = field
    else:
        doc, limits = field.metadata["doc"], field.metadata.get("range")
        symbol = f" ({limits.symbol})" if limits and limits.symbol else ""
        told = f"{doc}{symbol}{meaning(field).removeprefix(doc)}"
    return f"{name}: {told}. Default: {default}" if default else f"{name}: {told}"


def field_of(function: str, argument: str) -> dataclasses.Field[Any] | str:
    """The field that an argument of a prebuilt chain goes to, or else what `chains.ARGUMENTS` says of it.

    Failing both, it is the field of this name in a link that the function mentions.
    """
    if found := targets(function).get(argument):
        return found
    if argument in chains.ARGUMENTS:
        return chains.ARGUMENTS[argument]
    mentioned = [getattr(chains, node.id, None) for node in ast.walk(FUNCTIONS[function]) if isinstance(node, ast.Name)]
    classes = (*mentioned, cx.scale_by_lr, cx.add_decayed_weights)
    return next(field for cls in classes for field in fields_of(cls) if field.name == argument)


def fields_of(x: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a class; none for anything else."""
    return dataclasses.fields(x) if isinstance(x, type) and dataclasses.is_dataclass(x) else ()


@functools.cache
def targets(function: str) -> dict[str, dataclasses.Field[Any]]:
    """The fields to which a function of the module passes its arguments as they are, itself or by another function."""
    node, found = FUNCTIONS[function], {}
    own = {a.arg for a in (*node.args.args, *node.args.kwonlyargs)}
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        known: dict[str, dataclasses.Field[Any]]
        if call.func.id in FUNCTIONS:
            arguments = FUNCTIONS[call.func.id].args
            names, known = [a.arg for a in (*arguments.args, *arguments.kwonlyargs)], targets(call.func.id)
        elif fields := fields_of(getattr(chains, call.func.id, None)):
            known = {field.name: field for field in fields}
            names = list(inspect.signature(getattr(chains, call.func.id)).parameters)
        else:
            continue
        for name, x in [*zip(names, call.args), *((k.arg, k.value) for k in call.keywords)]:
            if isinstance(x, ast.Name) and x.id in own and name in known:
                found.setdefault(x.id, known[name])
    return found


def plain(default: str) -> str:
    """A default as a stub has it: only literals are written out."""
    try:
        ast.literal_eval(default)
    except ValueError:
        return "..."
    return default


def documented(text: str, arguments: list[str]) -> str:
    """A docstring with a list of arguments."""
    paragraphs = [text for text in text.split("\n\n") if not text.startswith(">>>")]
    lines = ["\n\n".join(paragraphs), *(["", "Args:", *(f"    {line}" for line in arguments)] if arguments else [])]
    whole = "\n".join(lines).replace("\\", "\\\\")
    return f'"""{whole}\n"""'


def indented(text: str) -> str:
    """A docstring in a body."""
    return textwrap.indent(text, "    ")


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
