"""llama.cpp's own server on the made-up model: `python -m support.llama_server TEXT EYES [KEY]`.

A process of its own, for it is to be killed. Prints 'at ADDRESS' when it serves.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any, Final

THREADS: Final = 1


def main() -> None:
    """Serve until killed."""
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('text')
    parser.add_argument('eyes')
    parser.add_argument('--key', default='')
    parser.add_argument('--port', type=int, default=0)
    parser.add_argument('--context', type=int, default=65_536)
    arguments = parser.parse_args()
    params: Any = xllamacpp.CommonParams()
    params.model.path = arguments.text
    params.mmproj.path = arguments.eyes
    params.n_ctx = arguments.context
    params.n_parallel = 2
    params.hostnames = ['127.0.0.1']
    params.port = arguments.port
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    if arguments.key:
        params.api_keys = [arguments.key]
    server = xllamacpp.Server(params)
    # In one write, on a line of its own: the server's log goes to the same file.
    os.write(1, f'\nat {server.listening_address}\n'.encode())
    while True:
        time.sleep(3600)


if __name__ == '__main__':
    main()
