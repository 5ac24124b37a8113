"""TensorZero's gateway as its Python package embeds it: `tensorzero_gateway.py CONFIG PORT_FILE`.

No registry has the gateway as a program of its own. The function is private, and listens on a port of its own choice.
"""

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import tensorzero

gateway = tensorzero._start_http_gateway(  # noqa: SLF001  # there is no public one
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
partial = Path(sys.argv[2] + ".partial")
partial.write_text(str(urlsplit(gateway.base_url).port))
partial.rename(sys.argv[2])
signal.pause()
