from neurovocal.engine.testing import check_processor, song
from neurovocal_loud import Loud


def test_conformance():
    check_processor(lambda: Loud(0.05, 32000), song(32000, 3.0))
