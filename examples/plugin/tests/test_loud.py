from neurovocal_loud import Loud

from neurovocal.engine.testing import check_processor, song


def test_conformance():
    check_processor(lambda: Loud(0.05, 32000), song(32000, 3.0))
