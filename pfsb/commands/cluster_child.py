"""One server of `pfsb cluster`: a process of `twistd` that also stops when `pfsb cluster` has ended, however that
came."""

from __future__ import annotations

import os
import signal
import sys
import time
from threading import Thread
from typing import Final

from pfsb.service.log_signals import LOG_SIGNALS
from pfsb.service.whole_cluster import WHOLE_CLUSTER

STOP_SECONDS: Final = 15.0
"""How long, in seconds, the server may take to stop when `pfsb cluster` has ended; then its process is ended at
once."""


def main() -> None:
    """Run `twistd` with the arguments of this process, in a process group of its own.

    So Ctrl-C reaches only `pfsb cluster`, which then asks its servers to stop. Standard input is a pipe from `pfsb
    cluster`: when it ends, `pfsb cluster` stops all its servers, or has ended, perhaps because it was killed. Then the
    server stops, and hands over to none of the others.
    """
    LOG_SIGNALS.take()
    os.setpgrp()
    Thread(target=_stop_at_end_of_input, name="pfsb cluster", daemon=True).start()
    sys.argv[0] = "twistd"
    from twisted.scripts.twistd import run

    run()


def _stop_at_end_of_input() -> None:
    while os.read(0, 1_024):
        continue  # only the end of input means something
    WHOLE_CLUSTER.stops = True
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
