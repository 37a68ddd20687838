"""What notebooks need: anchors, and formulas as MathML, which browsers draw by themselves, with nothing from elsewhere."""

from docutils.nodes import SkipNode, paragraph
from latex2mathml.converter import convert


def inline(self, node):
    """A formula in a line."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def block(self, node):
    """A formula on lines of its own."""
    formula = f'<div class="math">{convert(node.astext(), display="block")}</div>'
    self.body.append(f"</p>{formula}<p>" if isinstance(node.parent, paragraph) else formula)
    raise SkipNode


def anchor(heading: str) -> str:
    """The anchor of a heading as Jupyter has it, to which the contents of a notebook lead."""
    return heading.replace(" ", "-")


def setup(app):
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
