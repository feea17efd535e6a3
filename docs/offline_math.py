"""Formulas as MathML, which browsers draw themselves: MathJax, Sphinx's usual way, is a script of another server.

docutils translates LaTeX, and raises for a command that it does not know; the build then fails, as it should.
"""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def visit_inline(writer, node):
    _visit(writer, node, "span", as_block=False)


def visit_block(writer, node):
    _visit(writer, node, "div", as_block=True)


def _visit(writer, node, tag, *, as_block):
    try:
        formula = tex2mathml(node.astext().strip(), as_block=as_block)
    except MathError as error:
        LOGGER.warning("A formula is not translated: %s", error, location=node)
        formula = writer.encode(node.astext())
    writer.body.append(writer.starttag(node, tag, "", CLASS="math notranslate") + formula + f"</{tag}>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
