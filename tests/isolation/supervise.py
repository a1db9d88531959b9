"""Runs a supervisor of echo workers, as a process for tests.  Its argument is a JSON object."""

from __future__ import annotations

import json
import sys

from hesper import log
from hesper.isolation import supervisor
from hesper.isolation.door import StartError
from hesper.isolation.listen import ListenError, bind, from_systemd

wanted = json.loads(sys.argv[1])
supervisor.STOP_PATIENCE = wanted.get("patience", supervisor.STOP_PATIENCE)
supervisor.START_PATIENCE = wanted.get("start_patience", supervisor.START_PATIENCE)
log.configure(json=True, level="debug")
try:
    listeners = from_systemd() or [bind(wanted["path"])]
    supervisor.Supervisor(
        listeners,
        "echo_door",
        wanted.get("options", {}),
        warm=wanted.get("warm", 1),
        max_clients=wanted.get("max_clients", 64),
    ).run(lambda about: print(json.dumps({"event": "ready", **about}), flush=True))
except (StartError, ListenError) as error:
    sys.exit(f"failed: {error}")
