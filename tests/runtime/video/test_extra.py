import sys
from pathlib import Path

import pytest

from diffusionpose.errors import InputError
from diffusionpose.runtime.video.following import Tracks
from diffusionpose.runtime.video.reading import VideoFile, check_extra


def test_a_missing_package_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, use in (("av", lambda: VideoFile(Path(__file__))), ("trackers", lambda: Tracks(25))):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError) as error:
            use()
        assert str(error.value).startswith(f"video needs {name} (")
        assert str(error.value).endswith("pip install 'diffusionpose[video]'")
        assert "\n" not in str(error.value)


def test_whether_all_is_there_can_be_asked_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    pytest.importorskip("trackers")
    check_extra()
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(InputError, match=r"^video needs trackers; install it: pip install '.*\[video\]'$"):
        check_extra()
