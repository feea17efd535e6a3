"""The reference of the package: the directive `{api} score_sde.sde` is a module, from its source.

The source says more than the imported module does: annotations as they are written, `x: ModelImages` and not the array
type that it stands for, constants, and the comments on them and on fields. Nothing is imported, so the pages are the
same whatever is installed. Names in annotations and in backticks are links, and a broken one is a warning.
"""

import ast
import builtins
import dataclasses
import functools
import json
import tokenize
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from plain_docstrings import code_block, markdown, prose
from sphinx import addnodes
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
LONGEST_VALUE = 20  # lines of a constant that are shown; of a longer one there is the link to the source
FOLDERS = ("score_sde.configs.v", "score_sde.configs.s", "score_sde.experiments")  # their files are not in it
METHODS = ("abstractmethod", "classmethod", "staticmethod")  # decorators that are options of a method's entry
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Module:
    """A module of the package as it is written. imports: a name in it -> where that comes from."""

    name: str
    path: Path
    tree: ast.Module
    lines: tuple[str, ...]
    comments: dict[int, str]
    imports: dict[str, str]

    def definitions(self) -> Iterator[tuple[str, ast.stmt]]:
        """The public names that the module defines, in its order."""
        for node in self.tree.body:
            for name in names_of(node):
                if not name.startswith("_"):
                    yield name, node

    def comment(self, node: ast.stmt) -> str:
        """The comment on the last line of a statement, else that on the lines above it."""
        if node.end_lineno in self.comments:
            return self.comments[node.end_lineno]
        above, line = [], node.lineno - 1
        while self.lines[line - 1].lstrip().startswith("#"):
            above.insert(0, self.comments[line])
            line -= 1
        return " ".join(above)


def names_of(node: ast.stmt) -> list[str]:
    """Names that a statement of a module or a class defines."""
    if isinstance(node, FUNCTION | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    flat = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target.id for target in flat if isinstance(target, ast.Name)]


@functools.cache
def modules() -> dict[str, Module]:
    """All modules of the package by their names, and the presets of configs."""
    files = [path for path in sorted((ROOT / "score_sde").rglob("*.py")) if path.name != "__main__.py"]
    places = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    places[ROOT / "configs" / "presets.py"] = ("score_sde", "configs", "presets")
    return {module.name: module for module in (_module(path, parts) for path, parts in places.items())}


def _module(path: Path, parts: tuple[str, ...]) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    imports = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            imports |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    with tokenize.open(path) as file:
        tokens = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens}
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, tree, tuple(source.splitlines()), comments, imports)


@functools.cache
def documented() -> dict[str, ast.stmt]:
    """Full names of all objects of the reference, `score_sde.sde.VP.g` among them."""
    found = {}
    for module in modules().values():
        for name, node in module.definitions():
            found[f"{module.name}.{name}"] = node
            for member, inner in members(module, node) if isinstance(node, ast.ClassDef) else ():
                found[f"{module.name}.{name}.{member}"] = inner
    return found


def members(module: Module, node: ast.ClassDef) -> Iterator[tuple[str, ast.stmt]]:
    """Public members of a class; not fields without a comment, which its signature shows, and not methods that take the
    docstring of a base.
    """
    for inner in node.body:
        for name in names_of(inner):
            if isinstance(inner, FUNCTION):
                own = ast.get_docstring(inner)
                wanted = own if name.startswith("_") else own or not _inherited(module, node, name)
            else:
                wanted = not name.startswith("_") and module.comment(inner)
            if wanted and (name == "__call__" or not name.startswith("_")):
                yield name, inner


def _members(name: str) -> list[str]:
    """All names in a class of the package, private ones too; [] for what is no class."""
    node = documented().get(name)
    return [each for inner in node.body for each in names_of(inner)] if isinstance(node, ast.ClassDef) else []


def _bases(module: Module, node: ast.ClassDef) -> Iterator[tuple[Module, ast.ClassDef]]:
    """The bases of a class that are of the package, the nearest first."""
    for base in node.bases:
        full = resolved(module, ast.unparse(base))
        for other in modules().values():
            for name, definition in other.definitions() if full else ():
                if f"{other.name}.{name}" == full and isinstance(definition, ast.ClassDef):
                    yield other, definition
                    yield from _bases(other, definition)


def _inherited(module: Module, node: ast.ClassDef, name: str) -> bool:
    return any(name in names_of(inner) for _, base in _bases(module, node) for inner in base.body)


def resolved(module: Module, name: str) -> str | None:
    """The full name of an object of the package that a module calls `name`; "" for others' objects, None for none."""
    root, _, rest = name.partition(".")
    if name in modules():
        return name
    if root in dict(module.definitions()) or root in {each for node in module.tree.body for each in names_of(node)}:
        return f"{module.name}.{name}"
    full = module.imports.get(root)
    if full is None:
        full, rest = (name, "") if root == "score_sde" else (None, rest)
        if full is None:
            return "" if hasattr(builtins, root) else None
    full = f"{full}.{rest}" if rest else full
    if full.partition(".")[0] != "score_sde":
        return ""
    if full in modules():
        return full
    home = next((full[:end] for end in _dots(full) if full[:end] in modules()), None)
    if home is None or home == module.name:
        return full if home else None
    return resolved(modules()[home], full[len(home) + 1 :])


def _dots(name: str) -> list[int]:
    """Places of the dots in a name, from its end."""
    return [place for place in range(len(name) - 1, 0, -1) if name[place] == "."]


class Writer:
    """The Markdown of one module."""

    def __init__(self, module: Module):
        self.module = module

    def text(self) -> str:
        definitions = list(self.module.definitions())
        names = ", ".join(f"{{py:obj}}`{name} <{self.module.name}.{name}>`" for name, _ in definitions)
        parts = [f"```{{py:module}} {self.module.name}\n```", self._documentation(self.module.tree)]
        parts += [f"**Names:** {names}"] * (len(definitions) > 1)
        for name, node in definitions:
            parts.append(self._class(node) if isinstance(node, ast.ClassDef) else self._object(name, node, "`````"))
        return "\n\n".join(filter(None, parts))

    def _class(self, node: ast.ClassDef) -> str:
        bases = [f"Bases: {', '.join(map(self._base, node.bases))}."] if node.bases else []
        inside = [self._object(name, inner, "````", node) for name, inner in members(self.module, node)]
        body = [*bases, self._documentation(node, [each.arg for each in self._fields(node)]), *inside]
        return _fenced("``````", "py:class", f"{node.name}{self._constructor(node)}", "\n\n".join(filter(None, body)))

    def _object(self, name: str, node: ast.stmt, fence: str, owner: ast.ClassDef | None = None) -> str:
        if isinstance(node, FUNCTION):
            return self._function(node, fence, owner)
        options = []
        if isinstance(node, ast.AnnAssign):
            options.append(f":type: {_annotation(node.annotation)}")
        body = [prose(self.module.comment(node), (), self._link(owner))]
        value = "" if node.value is None else ast.unparse(node.value)
        source = "" if node.value is None else ast.get_source_segment("\n".join(self.module.lines), node)
        if owner is None and 0 < len(value) <= 60 and len(names_of(node)) == 1:
            options.append(f":value: {json.dumps(value)}")
        elif owner is None and source and source.count("\n") < LONGEST_VALUE:
            body.append(code_block(source))
        text = "\n".join([*options, "", "\n\n".join(filter(None, body))])
        return _fenced(fence, "py:attribute" if owner else "py:data", name, text)

    def _function(self, node: ast.FunctionDef, fence: str, owner: ast.ClassDef | None) -> str:
        decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
        arguments = _arguments(node, bound=owner is not None and "staticmethod" not in decorators)
        body = self._documentation(node, [each.arg for each in _all_arguments(node)], owner)
        returns = f" -> {_annotation(node.returns)}" if node.returns else ""
        if decorators & {"property", "cached_property"}:
            return _fenced(fence, "py:property", node.name, (f":type: {returns[4:]}\n\n" if returns else "") + body)
        kind = "py:method" if owner else "py:function"
        options = "".join(f":{each}:\n" for each in METHODS if each in decorators)
        return _fenced(fence, kind, f"{node.name}({arguments}){returns}", (options and options + "\n") + body)

    def _constructor(self, node: ast.ClassDef) -> str:
        """The signature of a class: that of its `__init__`, or its fields, with those of its bases first."""
        for inner in node.body:
            if isinstance(inner, FUNCTION) and inner.name == "__init__":
                return f"({_arguments(inner, bound=True)})"
        fields = {}
        family = [*reversed(list(_bases(self.module, node))), (self.module, node)]
        if not any(map(_has_fields, (each for _, each in family))):
            return ""
        for _, each in family:
            for field in self._fields(each):
                fields[field.arg] = field
        texts = [f"{name}: {_annotation(each.annotation)}{each.value}" for name, each in fields.items()]
        return f"({', '.join(texts)})"

    @staticmethod
    def _fields(node: ast.ClassDef) -> list:
        return [
            Field(inner.target.id, inner.annotation, f" = {ast.unparse(inner.value)}" if inner.value else "")
            for inner in (node.body if _has_fields(node) else ())
            if isinstance(inner, ast.AnnAssign) and not inner.target.id.startswith("_")
            if "ClassVar" not in ast.unparse(inner.annotation)
            if not (inner.value and "init=False" in ast.unparse(inner.value))
        ]

    def _documentation(self, node: ast.AST, arguments: list[str] = (), owner: ast.ClassDef | None = None) -> str:
        text = ast.get_docstring(node) or ""
        return markdown(text, arguments, self._link(node if isinstance(node, ast.ClassDef) else owner))

    def _base(self, base: ast.expr) -> str:
        return self._link(None)(ast.unparse(base)) or f"`{ast.unparse(base)}`"

    def _link(self, owner: ast.ClassDef | None):
        def link(text: str) -> str | None:
            name = text.removesuffix("()")
            if not all(part.isidentifier() for part in name.split(".")):
                return None
            inside = f"{self.module.name}.{owner.name}.{name}" if owner else None
            full = inside if inside in documented() else resolved(self.module, name)
            if not full or full.startswith(FOLDERS) or not ("." in name or full in documented()):
                return None
            owner_name, _, part = full.rpartition(".")
            if full not in documented() and part in _members(owner_name):
                return None  # a field, which the signature of its class shows
            return f"{{py:obj}}`{text} <{full}>`"

        return link


@dataclasses.dataclass
class Field:
    arg: str
    annotation: ast.expr
    value: str


def _has_fields(node: ast.ClassDef) -> bool:
    """Whether the annotated names of a class are the arguments of its constructor."""
    decorators = " ".join(map(ast.unparse, node.decorator_list))
    return "dataclass" in decorators or any(ast.unparse(base) in ("NamedTuple", "nn.Module") for base in node.bases)


def _annotation(node: ast.expr) -> str:
    """An annotation as it is written; one in quotation marks without them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node)


def _all_arguments(node: ast.FunctionDef) -> list[ast.arg]:
    a = node.args
    return [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]


def _arguments(node: ast.FunctionDef, *, bound: bool) -> str:
    """The arguments as they are written, annotations without quotation marks; without self or cls if `bound`."""
    a = ast.parse(ast.unparse(node)).body[0].args
    for each in [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]:
        if each.annotation is not None:
            each.annotation = ast.Name(_annotation(each.annotation))
    if bound:
        (a.posonlyargs or a.args).pop(0)
    return ast.unparse(a)


def _fenced(fence: str, directive: str, argument: str, body: str) -> str:
    return f"{fence}{{{directive}}} {argument}\n{body}\n{fence}"


class Api(SphinxDirective):
    """`{api} MODULE`: the module's docstring and public names."""

    required_arguments = 1

    def run(self):
        module = modules()[self.arguments[0]]
        self.env.note_dependency(str(module.path))
        parsed = self.parse_text_to_nodes(Writer(module).text())
        for reference in [each for node in parsed for each in node.findall(addnodes.pending_xref)]:
            full = resolved(module, reference["reftarget"])
            if full:
                reference.update_all_atts({"reftarget": full, "reftype": "obj", "refspecific": False}, replace=True)
            elif full == "":  # another library's, in a signature
                reference.replace_self(reference.children)
        return parsed


class FileLinks(SphinxTransform):
    """Links to Python files, which Markdown takes for pages since some, the notebooks, are.

    They lead to the source on the site for a module of the package, and to a copy of the file for others; those to the
    README lead to the first page.
    """

    default_priority = 100

    def apply(self, **kwargs):
        sources = {module.path.relative_to(ROOT).with_suffix("").as_posix(): name for name, module in modules().items()}
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = link.get("reftarget", "")
            if link.get("refdomain") != "doc" or target in self.env.found_docs:
                continue
            if target == "README":
                link["reftarget"] = self.config.root_doc
            elif target in sources:
                place = f"_modules/{sources[target].replace('.', '/')}"
                uri = self.app.builder.get_relative_uri(self.env.docname, place)
                link.replace_self(nodes.reference("", "", *link.children, refuri=uri, internal=True))
            elif (ROOT / f"{target}.py").exists():
                attributes = {"refdoc": self.env.docname, "reftarget": f"/{target}.py", "reftype": "myst"}
                link.replace_self(addnodes.download_reference("", "", *link.children, **attributes))


def find_source(app, name):
    """Source and places of its objects, for the links to it."""
    return _source(name) if name in modules() else None


@functools.cache
def _source(name: str):
    code = modules()[name].path.read_text(encoding="utf-8")
    return code, ModuleAnalyzer.for_string(code, name).find_tags()


def setup(app):
    app.add_directive("api", Api)
    app.add_transform(FileLinks)
    app.connect("viewcode-find-source", find_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
