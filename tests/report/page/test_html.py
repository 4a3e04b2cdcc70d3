"""Elements: everything that is not made by `tag` is escaped."""

from diffprobe.report.page.html import data_block, joined, tag


def test_texts_and_attributes_are_escaped_and_elements_are_not():
    assert tag("p", "a < b & c", tag("b", "d")) == "<p>a &lt; b &amp; c<b>d</b></p>"
    assert tag("a", "x", title='"<&') == '<a title="&quot;&lt;&amp;">x</a>'
    assert joined("<", tag("b", "x")) == "&lt;<b>x</b>"


def test_attributes_that_are_none_or_false_are_left_out_and_zero_is_not():
    assert tag("input", hidden=True, value=0, name=None, disabled=False) == '<input hidden value="0">'
    assert tag("label", "x", for_="y", aria_label="z") == '<label for="y" aria-label="z">x</label>'


def test_no_text_ends_a_block_of_data():
    assert data_block(["</script><script>alert(1)"]).count("</script>") == 1
