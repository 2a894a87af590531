"""The picture of claims: every one on its line, by table, marked by verdict."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from workbook_toys import legend, words

from richsem.workbook.figures import claims

COLUMNS = ["claim", "verdict", "mean", "low", "high", "margin", "result"]
FRAME = pd.DataFrame(
    [
        ("A gains", "holds", 3.0, 2.0, 4.0, 0.0, "Table 1"),
        ("B gains", "open: one seed", 1.0, None, None, 0.0, "Table 1"),
        ("C costs nothing", "refuted", -2.0, -3.0, -1.0, -0.5, "Table 2"),
    ],
    columns=COLUMNS,
)


def test_every_claim_has_its_mark_its_interval_and_its_margin():
    fig = claims.claims_figure(FRAME)
    (ax,) = fig.axes
    assert words(ax.get_yticklabels()) == FRAME["claim"].tolist()
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [float(mark.get_xdata()[0]) for mark in marks] == [3.0, 1.0, -2.0]
    assert [mark.get_marker() for mark in marks] == ["o", "D", "X"]  # a cue beside the colour
    intervals = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert intervals == [[2.0, 4.0], [-3.0, -1.0]]
    assert legend(ax) == ["holds: 1", "open: 1", "refuted: 1", "margin to clear"]
    assert [text.get_text() for text in ax.texts] == ["Table 1", "Table 2"]
    places = [float(mark.get_ydata()[0]) for mark in marks]
    assert places == sorted(places) and len(set(places)) == 3
    plt.close(fig)
    with pytest.raises(ValueError, match="run notebooks 09 to 11 first"):
        claims.claims_figure(FRAME[:0])
