"""Score and speed of trained models, apart for each way of measuring."""

import pytest

from vfm_ss.protocol.runs import Run
from vfm_ss.ranking.analysis import analyse
from vfm_ss.ranking.speed import speeds
from vfm_ss.report.figures import speed_figure
from vfm_ss.report.plot_data import plot_data
from vfm_ss.report.tables import all_tables


def speed(rate, device="GPU", **changes):
    found = dict(
        images_per_second=rate,
        latency_seconds=2 / rate,
        peak_memory_mb=None,
        batch_size=4,
        image_size=[512, 512],
        device=device,
        precision="fp16",
    )
    return found | changes


def run_of(record):
    return Run(record.setting, record.vfm, record.seed, record.miou, "record.json", record)


@pytest.fixture
def analysis(make_record):
    given = [
        ("dinov2", 0, 60.0, speed(100.0)),
        ("dinov2", 1, 61.0, speed(110.0)),
        ("dinov2", 2, 62.0, None),
        ("mae", 0, 50.0, speed(90.0)),
        ("sam", 0, 40.0, speed(200.0)),
        ("sam", 1, 42.0, speed(20.0, "CPU")),
        ("eva02", 0, 55.0, None),
    ]
    records = [make_record(v, seed=s, miou=m, speed=f) for v, s, m, f in given]
    return analyse(map(run_of, records))


def test_only_what_was_measured_and_alike_is_compared(analysis):
    table = speeds(analysis.cells)
    found = {(r.vfm, r.measured.split(",")[0]): r for r in table.itertuples()}
    assert found.keys() == {("dinov2", "GPU"), ("mae", "GPU"), ("sam", "GPU"), ("sam", "CPU")}
    assert found["dinov2", "GPU"].images_per_second == 105.0
    assert (found["dinov2", "GPU"].miou, found["dinov2", "GPU"].runs) == (61.0, 2)
    assert found["sam", "CPU"].images_per_second == 20.0
    assert found["sam", "CPU"].latency_seconds == 0.1
    assert found["sam", "CPU"].measured == "CPU, fp16, 512 x 512 pixels, batches of 4"
    fronts = {key: row.front for key, row in found.items()}
    assert fronts.pop(("mae", "GPU")) is False
    assert all(fronts.values())


def test_the_report_shows_it_where_there_is_any(analysis, make_record):
    (table,) = (t for t in all_tables(analysis, "default") if t.key == "speed")
    assert len(table.rows) == 4
    assert table.shown()[0][2:6] == ["61.00 ± 1.00", "105.0", "19.1 ms", "–"]
    series = plot_data(analysis, "default")["speeds"]
    assert [len(s["x"]) for s in series] == [3, 1]
    figure = speed_figure(analysis)
    lines = figure.axes[0].get_lines()
    assert sorted(x for line in lines for x in line.get_xdata()) == [20.0, 90.0, 105.0, 200.0]
    bare = analyse([run_of(make_record("mae"))])
    assert all(t.key != "speed" for t in all_tables(bare, "default"))
    assert plot_data(bare, "default")["speeds"] == []
