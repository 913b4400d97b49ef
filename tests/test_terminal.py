"""Whatever reaches a terminal goes through one way out: escapes, controls and marks of direction are made visible."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sdbatch
from sdbatch import api
from sdbatch.cli import app, output
from sdbatch.cli.shown import show, show_table, tell
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.models import ModelReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.predicted.memory import ModelMemory
from sdbatch.errors import UserError
from sdbatch.report.progress import Lines, Terminal

EVIL = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31md\u202ee\u2028f\x00g\u061ch\u200fi\u2066j\ufeffk\U000e0041l[bold]m"
FORBIDDEN = {letter for letter in EVIL if not letter.isascii()} | {"\x1b", "\x07", "\r", "\x00"}


def _is_plain(text: str) -> bool:
    return not FORBIDDEN & set(text) and all(ord(letter) >= 32 or letter in "\n\t" for letter in text)


@pytest.mark.fault(
    "S12", "escapes, controls, marks of direction in any text", "made visible on every way to the terminal"
)
def test_every_way_to_the_terminal_makes_controls_visible(capsys: pytest.CaptureFixture[str]) -> None:
    show(EVIL)
    tell(EVIL)
    show_table([(EVIL, "1")], ("rows", "number"), EVIL.replace("\n", ""))
    output.say({"asset": EVIL, EVIL: [EVIL]}, True, "")
    output.say({}, False, EVIL)
    Lines().say(EVIL)
    shown = capsys.readouterr()

    assert _is_plain(shown.err)
    assert "\\u001b[2J" in shown.out
    assert "[bold]m" in shown.out
    lines = shown.out.splitlines()
    parsed = json.loads(next(line for line in lines if line.startswith("{")))
    assert parsed == {"asset": EVIL, EVIL: [EVIL]}, "JSON tells the same text"
    assert all(_is_plain(line) for line in lines)


@pytest.mark.fault(
    "S12", "a stranger's class name in `models list`, a reason in `plan`, a failure in the summary", "made visible"
)
def test_the_commands_make_controls_visible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = ModelMemory(
        model=EVIL,
        weights_bytes=1,
        height=1,
        width=1,
        num_frames=1,
        rows=1,
        peak_bytes=1,
        peak_in="decoding",
        card_gb=16,
        is_on_gpu=True,
    )
    model = ModelReport(
        name=EVIL,
        family=EVIL,
        path=EVIL,
        tasks=[EVIL],
        lacking=[EVIL],
        width=1,
        height=1,
        size_multiple=8,
        size_rule="multiples of 8",
        frame_rule="",
        num_frames=None,
        fps=None,
        schedulers=[],
        dtype="float32",
        memory=memory,
    )
    monkeypatch.setattr(api, "list_models", lambda *_: [model])
    monkeypatch.setattr(api, "load_job", lambda *_, **__: None)
    report = PlanReport(rows={EVIL: 1}, changed={EVIL: 1}, sources_missing=[EVIL], unpinned=[EVIL], memory=[memory])
    monkeypatch.setattr(api, "plan", lambda *_, **__: report)
    for arguments in (["models", "list", "x.yaml", "--all"], ["plan", "x.yaml"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "\\u001b[2J" in done.stdout
        assert _is_plain(done.stdout)
    result = RunResult(
        run_id=EVIL,
        output=EVIL,
        state="failed",
        exit_code=3,
        counts={EVIL: 1},
        failures={EVIL: 1},
        wall_s=1.0,
        message=EVIL,
        warnings=(EVIL,),
        first_failures=({"id": EVIL, "n": None, "error_type": EVIL, "error_message": EVIL},),
    )
    with pytest.raises(BaseException, match="3"):
        output.end_run(result, accept_failed=False, as_json=False, verbose=True)

    def fail() -> None:
        raise UserError(EVIL)

    with pytest.raises(BaseException, match="2"):
        output.guarded(fail, as_json=False)
    shown = capsys.readouterr()
    assert "\\u001b[2J" in shown.out
    assert _is_plain(shown.out)
    assert _is_plain(shown.err)


def test_the_bar_makes_controls_visible_and_takes_no_markup() -> None:
    from rich.console import Console

    bar = Terminal()
    stream = io.StringIO()
    bar._bar.live.console = Console(file=stream, force_terminal=False, width=200)
    bar.say(EVIL)
    bar._bar.live.console.print(bar._bar.get_renderable())

    assert "\\u001b[2J" in stream.getvalue()
    assert "[bold]m" in stream.getvalue()
    assert _is_plain(stream.getvalue())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_table_cuts_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(is_terminal)))
    ids = [f"{'spring.mug.' * 6}{number}" for number in range(2)]
    show_table([(one, "too dark, and rather " * 5) for one in ids], ("output", "note"))
    lines = capsys.readouterr().out.splitlines()

    if is_terminal:
        assert max(map(len, lines)) <= 80 + len("\x1b[1m\x1b[0m") * 10
        first = "".join(line.strip("│ ").split("│")[0].strip() for line in lines)
        assert all(one in first for one in ids)
    else:
        assert [sum(one in line for line in lines) for one in ids] == [1, 1], "a pipe gets whole lines"


def test_nothing_else_prints() -> None:
    root = Path(sdbatch.__file__).parent
    printing = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }

    assert printing == {"cli/shown.py"}
