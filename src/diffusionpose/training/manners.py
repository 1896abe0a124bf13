"""Lightning's manners: no notices and hints, and endings that tell what happened."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed


def first_process() -> bool:
    """Whether this is the one of all processes that writes and reports."""
    return getattr(rank_zero_only, "rank", 0) in (0, None)


@contextmanager
def quiet() -> Iterator[None]:
    """No notices and hints of Lightning's: what matters is said by the run itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def plain_endings() -> Iterator[None]:
    """What Lightning makes of signals put right: SIGTERM it ends with status 0, Ctrl-C it swallows.

    And of several processes only the one in which something went wrong says so.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if lost and not first_process():
            raise SystemExit(1) from error
        raise
